// Root mean square normalisation with the residual addition before it, as transformers computes it: in fp32, rounded to
// the compute dtype before the weight is applied.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace finetuned {

// h = x + delta (x itself when delta is undefined), y = weight · normalise(h). x, delta [t, d] compute dtype; weight [d],
// frozen. → (h, y), both [t, d], differentiable in x and delta.
std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                                             double eps);

}  // namespace finetuned
