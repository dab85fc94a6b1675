// Loss and perplexity of a model on the samples of a TokenStore. Sums in fp64; perplexity = exp(mean loss), as
// transformers users compute it.
#pragma once

#include <functional>
#include <vector>

#include "finetuned/v1/types.pb.h"
#include "worker/data/prepared_data.h"
#include "worker/models/causal_lm.h"

namespace finetuned {

struct EvaluateOptions {
  int64_t rows = 4;               // rows of a batch
  int64_t max_seq_length = 2048;  // tokens of a row
  int64_t max_samples = 0;        // first samples of the store; 0 = all
  bool all_tokens = false;        // also prompt and overall; costs the vocabulary projection at every token
  std::function<void(int64_t done, int64_t total)> progress;  // samples
  std::function<bool()> cancelled;                             // asked after every batch
};

// Fills loss blocks, samples and seconds. Changes no training state: no gradients, no random numbers. Throws
// std::runtime_error when cancelled.
v1::EvaluationResult EvaluateLoss(CausalLm& model, const TokenStore& store, const EvaluateOptions& options);

// Tokens that an evaluation of at most max_samples reads.
int64_t EvaluationTokens(const TokenStore& store, int64_t max_samples);

// Fills loss and perplexity from a sum and a count; NaN when the count is 0.
void FillLoss(double nll_sum, int64_t tokens, v1::LossSummary* out);

}  // namespace finetuned
