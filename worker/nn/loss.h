// Cross-entropy of a frozen vocabulary projection, in chunks of positions, so that full logits never exist.
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/nn/batch.h"

namespace finetuned {

// Σ over targets of −log softmax(hidden Wᵀ)[target], fp32 scalar, differentiable in hidden. hidden [t, d] compute dtype;
// weight [v, d] compute dtype, frozen; targets [t] int64. Only positions with a target are projected; the gradient of
// hidden is formed together with the loss, chunk by chunk. log-softmax in fp32.
at::Tensor ChunkedLossSum(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets);

// −log p of each target, fp32 [t], 0 where there is none. No gradient.
at::Tensor ChunkedTokenLosses(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets);

}  // namespace finetuned
