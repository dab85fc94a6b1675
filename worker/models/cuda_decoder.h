// The training step of the decoder on a GPU in bf16, ordered by hand: loss and gradients of the
// adapters are what the composition of worker/nn blocks in decoder.cc gives, no further from fp32
// than it, with fewer passes over memory and no host synchronisation inside.
//
//   forward   n₁ = norm(x)   [Q|K|V] = n₁ W_qkv   rotate   o = attention   h = x + o W_o
//             n₂ = norm(h)   [g|u] = n₂ W_gu      a = silu(g)·u            x' = h + a W_d
//   backward  the same line from the end; U = X Aᵀ and dS = dY sB ride in spare columns
//             (worker/nn/cuda_linear.h)
//
// Activations are either all kept, or x, h, o are kept on the host and the rest is computed again:
// equal bits either way. Memory is one arena, laid out for the largest batch seen; where
// activations are kept and an eighth of the device would still be free, decoded weights stay in
// memory too. Two runs give equal bits.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "kernels/attention/attention_cudnn.h"
#include "worker/models/decoder.h"
#include "worker/nn/cuda_linear.h"
#include "worker/nn/host_ring.h"

namespace finetuned {

class CudaDecoder {
 public:
  // Whether this model with the adapters it has now can run here: a GPU that CudnnAttention knows,
  // bf16, no biases, no dropout, dimensions that are multiples of 8 (heads: of 16, up to 128).
  static bool Supports(const ModelConfig& config, const DecoderWeights& weights);

  // References are kept; the adapters stay attached as they are.
  CudaDecoder(const ModelConfig& config, const DecoderWeights& weights, const Rope& rope);
  ~CudaDecoder();

  // As CausalLm. One loss at a time: its backward pass must run before the next call.
  at::Tensor LossSum(const Batch& batch, bool recompute);
  at::Tensor TokenLosses(const Batch& batch);

  // For LossSum's graph. → gradients in the order of adapters(); d_loss: fp32 scalar on the device.
  std::vector<at::Tensor> Backward(const at::Tensor& d_loss);
  int64_t pass() const { return pass_; }
  const std::vector<at::Tensor>& adapters() const { return adapters_; }

 private:
  struct Layer;
  enum class Keep { kAll, kOnHost, kNothing };
  // The widths that rows of all layers share, spare columns included, in elements.
  struct Strides {
    int64_t norm1 = 0, qkv = 0, attended = 0, norm2 = 0, gate_up = 0, act = 0;
    int64_t d_qkv = 0, d_out = 0, d_hidden = 0;
  };
  class Arena;

  void Begin(const Batch& batch, Keep keep);
  void Place(Arena& arena);
  // Lets the decoded weights stay in memory if there is enough to spare, or not any more.
  void KeepWeights(bool wanted);
  void Forward(const Batch& batch);
  void AttentionIn(Layer& layer);
  void AttentionOut(Layer& layer);
  void MlpIn(Layer& layer);
  void LayerBackward(size_t index, float* gradients);
  // Losses of the positions with a target; with `gradient` also d hidden, in hidden_.
  at::Tensor Head(const Batch& batch, bool gradient);

  const ModelConfig& config_;
  const DecoderWeights& weights_;
  const Rope& rope_;
  std::vector<std::unique_ptr<Layer>> layers_;
  std::vector<at::Tensor> adapters_;
  Strides strides_;
  CudaLinearContext context_;
  std::unique_ptr<kernels::CudnnAttention> attention_;

  // Of the batch at hand.
  Keep keep_ = Keep::kNothing;
  int64_t t_ = 0, pass_ = 0;
  at::Tensor arena_, weights_memory_, offsets_, losses_;
  RotaryTable table_;
  const int32_t* offsets_at_ = nullptr;
  __nv_bfloat16 *last_x_ = nullptr, *hidden_ = nullptr, *logits_ = nullptr;
  __nv_bfloat16 *d_x_ = nullptr, *d_h_ = nullptr, *d_act_ = nullptr, *d_qkv_ = nullptr;
  float* final_rstd_ = nullptr;
  void *attention_workspace_ = nullptr, *gemm_workspace_ = nullptr;
  int64_t logit_rows_ = 0, logit_stride_ = 0;
  std::unique_ptr<HostRing> x_ring_, h_ring_, attended_ring_;
};

}  // namespace finetuned
