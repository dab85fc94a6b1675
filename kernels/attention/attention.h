// Rotary position embedding and causal attention over documents laid end to end, forward and
// backward, fp32 on the CPU.
//
// Attention (Vaswani et al., 2017) within each document, grouped queries (Ainslie et al., 2023),
// rotation by halves (Su et al., "RoFormer", 2021, as Llama arranges it): (x1, x2) → (x1 c − x2 s,
// x2 c + x1 s). Scores are recomputed in the backward pass from the log-sum-exp of each row (Dao et
// al., "FlashAttention", 2022), so memory does not grow with the square of a document. Each
// (document, key/value head) is one task of one thread: results do not depend on the number of
// threads.
#pragma once

#include <cstdint>

namespace finetuned::kernels {

struct AttentionShape {
  const int64_t* cu_seqlens = nullptr;  // n + 1 boundaries, host
  int64_t documents = 0;                // n
  int64_t heads = 0, kv_heads = 0;      // h, k; k divides h
  int64_t head_dim = 0;                 // e, even
  float scale = 1;                      // of the scores, usually 1/√e

  int64_t row() const { return (heads + 2 * kv_heads) * head_dim; }  // width of qkv
};

// qkv [t, (h + 2k) e] = Q | K | V; Q and K are rotated in place. cos, sin [t, e/2].
// out [t, h e]; lse [t, h] log-sum-exp of the scaled scores.
void RotaryAttentionForward(const AttentionShape& shape, float* qkv, const float* cos,
                            const float* sin, float* out, float* lse);

// qkv as the forward pass left it. d_qkv [t, (h + 2k) e]: gradient of qkv as it was before the
// rotation.
void RotaryAttentionBackward(const AttentionShape& shape, const float* d_out, const float* qkv,
                             const float* cos, const float* sin, const float* out, const float* lse,
                             float* d_qkv);

// The forward pass in plain loops in double precision, for tests; qkv is rotated in place too.
void RotaryAttentionForwardReference(const AttentionShape& shape, float* qkv, const float* cos,
                                     const float* sin, float* out, float* lse);

}  // namespace finetuned::kernels
