// Gradient checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016): a function's activations
// are dropped after the forward pass and computed again in the backward pass, with the same random numbers, so that the
// gradients are the same bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace finetuned {

using TensorFunction = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>&)>;

// f(inputs), differentiable in inputs and in `parameters` (leaves that f uses). Undefined inputs are passed on as such.
// What f captures must outlive the graph. uses_randomness: f draws from torch's default generator of the inputs' device.
std::vector<at::Tensor> Checkpoint(const TensorFunction& f, const std::vector<at::Tensor>& inputs,
                                   const std::vector<at::Tensor>& parameters, bool uses_randomness);

}  // namespace finetuned
