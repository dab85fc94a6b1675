// Where the adapter of a job of kind export, merge or generate is: source.adapter_path, or the source job's final adapter
// or one of its checkpoints.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "finetuned/v1/worker.pb.h"

namespace finetuned {

// A PEFT directory; empty when the plan names no source (generate with the base model alone). A failure with
// INVALID_SPEC names what is missing and what there is.
absl::StatusOr<std::string> AdapterOf(const v1::AttemptPlan& plan);

}  // namespace finetuned
