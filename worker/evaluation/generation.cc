#include "worker/evaluation/generation.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace finetuned {
namespace {

// transformers' RepetitionPenaltyLogitsProcessor: positive logits of tokens already there are divided, negative ones
// multiplied.
void PenalizeRepetition(at::Tensor row, const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer,
                        float penalty) {
  float* logits = row.data_ptr<float>();
  std::vector<int32_t> seen = prompt;
  seen.insert(seen.end(), answer.begin(), answer.end());
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  for (int32_t id : seen) logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
}

int64_t Sample(at::Tensor row, const v1::Generation& settings, at::Generator& generator) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  row = row / settings.temperature();
  if (settings.top_k() > 0 && settings.top_k() < row.size(0)) {
    const at::Tensor least = std::get<0>(at::topk(row, settings.top_k())).index({-1});
    row = row.masked_fill(row < least, kNever);
  }
  if (settings.top_p() < 1) {
    auto [sorted, order] = at::sort(row, /*dim=*/0, /*descending=*/true);
    const at::Tensor before = at::softmax(sorted, 0).cumsum(0) - at::softmax(sorted, 0);
    // A token stays while the mass before it is below top_p, so at least one always does.
    row = row.masked_fill(at::zeros_like(row, at::kBool).scatter(0, order, before >= settings.top_p()), kNever);
  }
  return at::multinomial(at::softmax(row, 0), 1, /*replacement=*/false, generator).item<int64_t>();
}

}  // namespace

std::vector<std::vector<int32_t>> Generate(CausalLm& model, const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerateOptions& options) {
  c10::InferenceMode no_gradients;
  const int64_t count = static_cast<int64_t>(prompts.size());
  std::vector<std::vector<int32_t>> answers(prompts.size());
  if (count == 0) return answers;
  size_t longest = 0;
  for (const auto& prompt : prompts) {
    if (prompt.empty()) throw std::invalid_argument("generation needs a prompt of at least one token");
    longest = std::max(longest, prompt.size());
  }
  const int64_t room = model.config().max_position_embeddings - static_cast<int64_t>(longest);
  const int64_t limit = std::min<int64_t>(options.settings.max_new_tokens(), room);
  if (limit <= 0) return answers;

  at::Tensor ids = at::zeros({count, static_cast<int64_t>(longest)}, at::kLong);
  at::Tensor pad = at::zeros({count, static_cast<int64_t>(longest)}, at::kBool);
  for (int64_t i = 0; i < count; ++i) {
    const auto& prompt = prompts[static_cast<size_t>(i)];
    const size_t padding = longest - prompt.size();
    for (size_t j = 0; j < padding; ++j) pad.data_ptr<bool>()[static_cast<size_t>(i) * longest + j] = true;
    for (size_t j = 0; j < prompt.size(); ++j) {
      ids.data_ptr<int64_t>()[static_cast<size_t>(i) * longest + padding + j] = prompt[j];
    }
  }

  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(options.seed);
  const bool greedy = options.settings.temperature() <= 0;
  const float penalty = static_cast<float>(options.settings.repetition_penalty());
  std::vector<bool> finished(prompts.size(), false);
  const auto cache = model.NewCache(count, static_cast<int64_t>(longest) + limit);
  at::Tensor input = ids.to(model.device()), mask = pad.to(model.device());
  for (int64_t step = 0; step < limit; ++step) {
    if (options.cancelled && options.cancelled()) throw std::runtime_error("generation cancelled");
    const at::Tensor logits = model.Step(input, mask, *cache).to(at::kCPU).contiguous();
    at::Tensor next = at::zeros({count, 1}, at::kLong);
    bool all_finished = true;
    for (int64_t i = 0; i < count; ++i) {
      const size_t k = static_cast<size_t>(i);
      if (finished[k]) continue;
      at::Tensor row = logits[i];
      if (penalty != 1.0f) PenalizeRepetition(row, prompts[k], answers[k], penalty);
      const int64_t id = greedy ? at::argmax(row).item<int64_t>() : Sample(row, options.settings, generator);
      const auto& stops = options.stop_token_ids;
      if (std::find(stops.begin(), stops.end(), id) != stops.end()) {
        finished[k] = true;
        continue;
      }
      answers[k].push_back(static_cast<int32_t>(id));
      next.data_ptr<int64_t>()[i] = id;
      all_finished = false;
    }
    if (options.progress) options.progress(step + 1, limit);
    if (all_finished) break;
    input = next.to(model.device());
    mask = at::zeros({count, 1}, at::TensorOptions(at::kBool).device(model.device()));
  }
  return answers;
}

}  // namespace finetuned
