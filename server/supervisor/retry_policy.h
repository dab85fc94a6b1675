// What happens after a failed or lost attempt: again, wait for disk, or the end. Pure.
#pragma once

#include <vector>

#include "absl/time/time.h"
#include "finetuned/v1/types.pb.h"

namespace finetuned {

struct RetryRule {
  v1::FailureReason reason;
  // Attempts in a row that may end for this reason without durable progress before the job fails;
  // 0: never again.
  int limit;
  const char* why;
};

// One row for each reason.
const std::vector<RetryRule>& RetryTable();

enum class AfterFailure { kFail, kRetry, kWaitForDisk };

// `failures_without_progress`: attempts in a row, this one included, that ended lost or failed and
// left no new durable progress (a checkpoint or a finished stage).
AfterFailure DecideAfterFailure(v1::FailureReason reason, int failures_without_progress);

// first, 2·first, 4·first … at most `max`; `failures` from 1.
absl::Duration RetryDelay(int failures, absl::Duration first, absl::Duration max);

}  // namespace finetuned
