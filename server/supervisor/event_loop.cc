#include "server/supervisor/event_loop.h"

#include "absl/time/clock.h"

namespace finetuned {

void EventLoop::Start(absl::Duration interval, std::function<void()> tick) {
  thread_ = std::thread([this, interval, tick = std::move(tick)] { Run(interval, tick); });
}

void EventLoop::Post(std::function<void()> task) {
  // A task refused after Stop is destroyed outside the lock: what it holds may call back.
  absl::MutexLock lock(&mutex_);
  if (!stopped_) tasks_.push_back(std::move(task));
}

void EventLoop::Stop() {
  std::deque<std::function<void()>> dropped;
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
    dropped.swap(tasks_);
  }
  if (thread_.joinable()) thread_.join();
}

void EventLoop::Run(absl::Duration interval, const std::function<void()>& tick) {
  absl::Time next_tick = absl::Now();
  for (;;) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithDeadline(absl::Condition(this, &EventLoop::HasWork), next_tick);
      if (stopped_) return;
      if (!tasks_.empty()) {
        task = std::move(tasks_.front());
        tasks_.pop_front();
      }
    }
    if (task) task();
    if (absl::Now() >= next_tick) {
      tick();
      next_tick = absl::Now() + interval;
    }
  }
}

}  // namespace finetuned
