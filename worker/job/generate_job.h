// The recipe of kind generate: answers to source.prompts by the base model, or with an adapter on it:
//
//   loading_model → injecting_adapters → evaluating
#pragma once

#include "finetuned/v1/worker.pb.h"
#include "worker/job/reporter.h"

namespace finetuned {

v1::AttemptEnd RunGenerate(const v1::AttemptPlan& plan, Reporter& reporter);

}  // namespace finetuned
