// The gated activation of Llama's MLP: silu(gate) · up.
#pragma once

#include <ATen/core/Tensor.h>

namespace finetuned {

// gate_up [t, 2f] = gate | up, compute dtype → [t, f].
at::Tensor SwiGlu(const at::Tensor& gate_up);

}  // namespace finetuned
