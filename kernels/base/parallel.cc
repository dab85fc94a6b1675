#include "kernels/base/parallel.h"

#include <omp.h>

#include <algorithm>
#include <atomic>

namespace finetuned::kernels {

void ParallelFor(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  const int64_t threads =
      std::min<int64_t>(omp_get_max_threads(), std::max<int64_t>(1, count / grain));
  if (threads == 1 || omp_in_parallel()) return body(0, count);
#pragma omp parallel num_threads(static_cast <int>(threads))
  {
    const int64_t piece = (count + threads - 1) / threads;
    const int64_t begin = std::min(count, omp_get_thread_num() * piece);
    const int64_t end = std::min(count, begin + piece);
    if (begin < end) body(begin, end);
  }
}

void ParallelTasks(int64_t count, const std::function<void(int64_t)>& body) {
  const int64_t threads = std::min<int64_t>(omp_get_max_threads(), count);
  if (threads <= 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(static_cast <int>(threads))
  for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) body(i);
}

}  // namespace finetuned::kernels
