// Rotary position embedding and causal attention over the documents of a batch: no token sees another document.
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/nn/batch.h"
#include "worker/nn/rope.h"

namespace finetuned {

struct AttentionConfig {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
};

// qkv [t, (h + 2k) e] = Q | K | V before rotation, compute dtype → [t, h e]; differentiable in qkv. CPU fp32: own kernel,
// which rotates Q and K in qkv itself (the caller must not read it again). CUDA fp16/bf16: FlashAttention over
// cu_seqlens. Otherwise: scaled_dot_product_attention, document by document.
at::Tensor DocumentAttention(const at::Tensor& qkv, const RotaryTable& table, const Batch& batch,
                             const AttentionConfig& config);

// x [..., heads, e] rotated; cos, sin [..., e/2] broadcast over heads. Rounded as transformers does: tables first.
at::Tensor RotateHalves(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace finetuned
