// Errors at the job boundary: absl::Status that knows its FailureReason, and the one place where exceptions become one.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "finetuned/v1/types.pb.h"

namespace finetuned {

// A status that carries a whole Failure.
absl::Status FailureStatus(v1::FailureReason reason, const std::string& message, const std::string& field = "",
                           std::vector<std::string> suggestions = {});

// Runs `body`; what it throws becomes a status: TrainingError with its facts, out of memory on the device or the host,
// anything else with `reason`.
absl::Status CatchAsStatus(v1::FailureReason reason, const std::function<absl::Status()>& body);

// The Failure a status stands for; `otherwise` where it carries none and its code does not tell (RESOURCE_EXHAUSTED of a
// full disk is DISK_FULL).
v1::Failure FailureOf(const absl::Status& status, v1::FailureReason otherwise);

}  // namespace finetuned
