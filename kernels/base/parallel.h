// Threads for the CPU kernels: OpenMP's pool, the one LibTorch uses, so that its thread count holds
// here too.
#pragma once

#include <cstdint>
#include <functional>

namespace finetuned::kernels {

// Calls body(begin, end) over consecutive pieces of [0, count), one a thread, none shorter than
// `grain` unless count is. Which piece goes where depends on the number of threads alone. Inside a
// parallel region everything runs at once.
void ParallelFor(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

// Calls body(i) for every i in [0, count), each index taken by whichever thread is free: for tasks
// of unequal size whose results do not depend on the thread.
void ParallelTasks(int64_t count, const std::function<void(int64_t)>& body);

}  // namespace finetuned::kernels
