// The model of a job as its spec wants it, and what it answers: shared by the recipes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/job/model_assets.h"
#include "worker/job/stage_runner.h"
#include "worker/models/causal_lm.h"

namespace finetuned {

// Loads plan.model_path on plan.device with dtype, quantization and gradient checkpointing of the spec; tells progress as
// loading_model and memory as "baseline" and "loaded". Throws as LoadCausalLm does.
std::unique_ptr<CausalLm> LoadJobModel(StageRunner& run);

void EmitMemory(StageRunner& run, const char* point);

// The answers to `prompts` (token ids, none empty) with spec.evaluation.generation, as text. `who` is for the progress line.
// Throws as Generate does.
std::vector<std::string> Answer(StageRunner& run, v1::Stage stage, CausalLm& model, const ModelAssets& assets,
                                const std::vector<std::vector<int32_t>>& prompts, const std::string& who);

}  // namespace finetuned
