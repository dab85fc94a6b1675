#include "worker/evaluation/loss.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>

#include "worker/evaluation/batch_builder.h"

namespace finetuned {

void FillLoss(double nll_sum, int64_t tokens, v1::LossSummary* out) {
  const double loss = nll_sum / static_cast<double>(tokens);
  out->set_loss(loss);
  out->set_tokens(tokens);
  out->set_perplexity(std::exp(loss));
}

int64_t EvaluationTokens(const TokenStore& store, int64_t max_samples) {
  const size_t count = max_samples > 0 ? std::min(store.size(), static_cast<size_t>(max_samples)) : store.size();
  int64_t tokens = 0;
  for (size_t i = 0; i < count; ++i) tokens += static_cast<int64_t>(store.Sample(i).input_ids.size());
  return tokens;
}

v1::EvaluationResult EvaluateLoss(CausalLm& model, const TokenStore& store, const EvaluateOptions& options) {
  c10::InferenceMode no_gradients;
  const auto start = std::chrono::steady_clock::now();
  std::vector<int32_t> lengths = SampleLengths(store);
  if (options.max_samples > 0 && lengths.size() > static_cast<size_t>(options.max_samples)) {
    lengths.resize(static_cast<size_t>(options.max_samples));
  }
  BatchOptions batch_options;
  batch_options.rows = options.rows;
  batch_options.max_seq_length = options.max_seq_length;
  const EpochBatches order = MakeEvalBatches(lengths, batch_options);

  double response_sum = 0, prompt_sum = 0;
  int64_t response_tokens = 0, prompt_tokens = 0, done = 0;
  for (const MicroBatch& micro_batch : order.batches) {
    if (options.cancelled && options.cancelled()) throw std::runtime_error("evaluation cancelled");
    const Batch batch = BuildBatch(store, micro_batch, options.all_tokens ? Targets::kAllTokens : Targets::kTrained, model.device());
    const at::Tensor losses = model.TokenLosses(batch).to(at::kCPU).contiguous();
    const float* loss = losses.data_ptr<float>();
    int64_t at = 0;
    for (const auto& row : micro_batch.rows) {
      for (uint32_t index : row) {
        const SampleView sample = store.Sample(index);
        const int64_t length = static_cast<int64_t>(sample.input_ids.size());
        for (int64_t i = 0; i + 1 < length; ++i) {
          if (sample.trained[static_cast<size_t>(i) + 1] != 0) {
            response_sum += static_cast<double>(loss[at + i]);
            ++response_tokens;
          } else if (options.all_tokens) {
            prompt_sum += static_cast<double>(loss[at + i]);
            ++prompt_tokens;
          }
        }
        at += length;
        ++done;
      }
    }
    if (options.progress) options.progress(done, static_cast<int64_t>(lengths.size()));
  }

  v1::EvaluationResult result;
  FillLoss(response_sum, response_tokens, result.mutable_response());
  if (options.all_tokens) {
    FillLoss(response_sum + prompt_sum, response_tokens + prompt_tokens, result.mutable_overall());
    if (prompt_tokens > 0) FillLoss(prompt_sum, prompt_tokens, result.mutable_prompt());
  }
  result.set_samples(static_cast<int64_t>(lengths.size()));
  result.set_seconds(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return result;
}

}  // namespace finetuned
