// Linear layers over a frozen base: dense or 4-bit, alone or fused (Q|K|V, gate|up), each part with its own LoRA adapter.
//
//   y_i = x W_iᵀ + b_i + scaling_i · (dropout(x) A_iᵀ) B_iᵀ          (Hu et al., "LoRA", 2021, section 4.1)
//
// W is never trained, so the backward pass forms dx, dA, dB only: dx = dy W + Σ scaling_i (dy_i B_i) A_i.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/quantization/quantized_tensor.h"

namespace finetuned {

// One trainable low-rank update. A and B are fp32 leaves with requires_grad on the model's device.
struct LoraParameters {
  at::Tensor a;  // [r, in]
  at::Tensor b;  // [out, r]
  double scaling = 1;
  double dropout = 0;
};

// One named projection of a fused layer, as it stands in the checkpoint.
struct LinearPart {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  int64_t in_features = 0, out_features = 0;
  at::Tensor weight;                         // [out, in] compute dtype; undefined when quantized
  std::optional<QuantizedTensor> quantized;  // instead of weight
  at::Tensor bias;                           // [out] compute dtype, or undefined
  std::shared_ptr<LoraParameters> lora;      // null: not adapted
};

class FusedLinear {
 public:
  // All parts share in_features and the compute dtype. Dense parts are stored as views of one concatenated matrix.
  explicit FusedLinear(std::vector<LinearPart> parts);

  // x: [t, in] compute dtype → [t, Σ out_i]. Differentiable in x and the adapters. Dropout is applied only with `train`;
  // its mask comes from torch's default generator of x's device.
  at::Tensor Forward(const at::Tensor& x, bool train = false) const;

  int64_t in_features() const { return parts_.front().in_features; }
  int64_t out_features() const { return out_features_; }
  bool quantized() const { return parts_.front().quantized.has_value(); }
  // The frozen matrix [Σ out_i, in] in the compute dtype; dequantized into fresh memory when it is kept in 4 bits.
  at::Tensor DenseWeight(at::ScalarType dtype) const;

  // While disabled the base model alone is computed (evaluation of the baseline, generation base against tuned).
  void set_adapters_enabled(bool enabled) { adapters_enabled_ = enabled; }
  bool adapters_enabled() const { return adapters_enabled_; }
  std::vector<LinearPart>& parts() { return parts_; }
  const std::vector<LinearPart>& parts() const { return parts_; }

 private:
  std::vector<LinearPart> parts_;
  at::Tensor fused_weight_;  // [Σ out_i, in] when all parts are dense
  at::Tensor fused_bias_;
  int64_t out_features_ = 0;
  bool adapters_enabled_ = true;
};

}  // namespace finetuned
