// The adapters a job would attach, from the names and shapes of a model that is not loaded.
#pragma once

#include <cstdint>
#include <vector>

#include "finetuned/v1/job_spec.pb.h"
#include "worker/models/model_summary.h"

namespace finetuned {

struct PlannedAdapter {
  const LinearInfo* linear;  // of the summary
  int64_t asked_rank;        // lora.r, or rank_pattern's
  int64_t rank;              // cut to the smaller dimension, as LoraAdapters::Inject does
  int64_t parameters() const { return rank * (linear->in_features + linear->out_features); }
};

// In model order. `lora` resolved. Throws std::invalid_argument where LoraAdapters::Inject would: a
// target that matches nothing, a pattern that is no regular expression. `model` must outlive the
// result.
std::vector<PlannedAdapter> PlanAdapters(const v1::Lora& lora, const ModelSummary& model);

}  // namespace finetuned
