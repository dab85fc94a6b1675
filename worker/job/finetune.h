// The recipe of kind finetune, readable from top to bottom:
//
//   preparing_data → loading_model → injecting_adapters → evaluating_base → training → evaluating →
//   merging → exporting
//
// Durable stages commit a result with the hash of their inputs; a new attempt enters at the first that is not done, and the
// model is loaded only if a stage ahead needs it.
#pragma once

#include "finetuned/v1/worker.pb.h"
#include "worker/job/reporter.h"

namespace finetuned {

v1::AttemptEnd RunFinetune(const v1::AttemptPlan& plan, Reporter& reporter);

}  // namespace finetuned
