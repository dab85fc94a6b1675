// A clock that stands still until it is told.
#pragma once

#include <mutex>

#include "server/store/clock.h"

namespace finetuned {

class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1700000000)) : now_(start) {}

  absl::Time Now() override {
    std::lock_guard<std::mutex> lock(mutex_);
    return now_;
  }
  // Negative steps are clock jumps backwards.
  void Advance(absl::Duration step) {
    std::lock_guard<std::mutex> lock(mutex_);
    now_ += step;
  }

 private:
  std::mutex mutex_;
  absl::Time now_;
};

}  // namespace finetuned
