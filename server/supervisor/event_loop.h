// One thread that runs functions in the order they were posted, and a tick in between. Everything
// the controller decides happens here, so its state needs no lock.
#pragma once

#include <deque>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace finetuned {

class EventLoop {
 public:
  EventLoop() = default;
  ~EventLoop() { Stop(); }

  // `tick` runs at least every `interval`, also under load.
  void Start(absl::Duration interval, std::function<void()> tick);

  // From any thread. After Stop the function is destroyed without being run.
  void Post(std::function<void()> task);

  // Waits for the running task, destroys the waiting ones and ends the thread. Idempotent; not from
  // the loop itself.
  void Stop();

 private:
  void Run(absl::Duration interval, const std::function<void()>& tick);
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopped_ || !tasks_.empty(); }

  absl::Mutex mutex_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace finetuned
