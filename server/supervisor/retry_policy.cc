#include "server/supervisor/retry_policy.h"

#include <algorithm>

namespace finetuned {

const std::vector<RetryRule>& RetryTable() {
  static const auto* table = new std::vector<RetryRule>{
      {v1::INVALID_SPEC, 0, "the same spec is as wrong again"},
      {v1::INVALID_DATA, 0, "the same data is as wrong again"},
      {v1::MODEL_NOT_FOUND, 0, "needs a hand"},
      {v1::UNSUPPORTED_MODEL, 0, "needs another model"},
      {v1::OUT_OF_MEMORY, 0,
       "the same plan needs the same memory; the failure suggests a smaller one"},
      {v1::HOST_OUT_OF_MEMORY, 2, "another process may have taken the memory for a while"},
      {v1::DISK_FULL, 0, "waits in the queue with reason DISK until there is room"},
      {v1::TRAINING_DIVERGED, 0, "runs are deterministic: it diverges again"},
      {v1::NAN_LOSS, 0, "runs are deterministic: it is NaN again"},
      {v1::EVALUATION_FAILED, 0, "deterministic; the training is kept, rerun from the stage"},
      {v1::MERGE_MISMATCH, 0, "deterministic; the training is kept, rerun from the stage"},
      {v1::EXPORT_FAILED, 0, "deterministic; the training is kept, rerun from the stage"},
      {v1::GATE_FAILED, 0, "a result, not an accident"},
      {v1::WORKER_CRASHED, 5, "a killed process goes on from its last checkpoint"},
      {v1::WORKER_LOST, 5, "a lost process goes on from its last checkpoint"},
      {v1::STALLED, 3, "a stuck process goes on from its last checkpoint"},
      {v1::DEVICE_ERROR, 3, "a driver or device may recover with a new process"},
      {v1::CHECKPOINT_CORRUPT, 0, "the worker has tried every older checkpoint already"},
      {v1::TIMEOUT, 0, "max_runtime is used up"},
      {v1::PREEMPTED, 1000, "not the job's fault"},
      {v1::INTERNAL, 0, "a defect of ours: again would hide it"},
  };
  return *table;
}

AfterFailure DecideAfterFailure(v1::FailureReason reason, int failures_without_progress) {
  if (reason == v1::DISK_FULL) return AfterFailure::kWaitForDisk;
  for (const RetryRule& rule : RetryTable()) {
    if (rule.reason != reason) continue;
    return failures_without_progress < rule.limit ? AfterFailure::kRetry : AfterFailure::kFail;
  }
  return AfterFailure::kFail;
}

absl::Duration RetryDelay(int failures, absl::Duration first, absl::Duration max) {
  return std::min(max, first * (int64_t{1} << std::clamp(failures - 1, 0, 20)));
}

}  // namespace finetuned
