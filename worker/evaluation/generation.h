// Text generation with a key/value cache, batched; greedy, or sampled in transformers' order: repetition penalty,
// temperature, top-k, top-p.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "finetuned/v1/job_spec.pb.h"
#include "worker/models/causal_lm.h"

namespace finetuned {

struct GenerateOptions {
  v1::Generation settings;               // resolved
  std::vector<int64_t> stop_token_ids;   // the model's end tokens
  uint64_t seed = 42;
  std::function<void(int64_t done, int64_t total)> progress;  // tokens of the batch's longest answer
  std::function<bool()> cancelled;
};

// prompts: token ids, each non-empty. → the generated ids of each, without the stop token. Prompts of one call run as one
// batch; a prompt that leaves no room below max_position_embeddings gets an empty answer. Throws std::runtime_error when
// cancelled.
std::vector<std::vector<int32_t>> Generate(CausalLm& model, const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerateOptions& options);

}  // namespace finetuned
