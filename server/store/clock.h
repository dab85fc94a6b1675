// Time behind an interface, so that leases, back-off and retention are tested without waiting.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace finetuned {

// Any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() = 0;
};

class SystemClock final : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
};

}  // namespace finetuned
