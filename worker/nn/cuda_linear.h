// A frozen linear layer with low-rank adapters on a GPU in bf16, one product forward and one
// backward over the extended weight of kernels/lora_weight: Y = [X | U]·[W | sB]ᵀ, dX = [dY |
// dS]·[W ; A]. Activations and gradients that it reads have spare columns at the end of their rows,
// where U = X Aᵀ and dS = dY sB are written.
//
// The weight is decoded into one scratch matrix that all layers share, and stays there until
// another layer's is needed: the caller orders its calls so that those of one layer follow each
// other.
//
// Raw device pointers, sizes in elements, rows t; nothing here allocates or synchronises. Errors:
// std::runtime_error.
#pragma once

#include <ATen/core/Tensor.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <vector>

#include "kernels/base/gemm_cuda.h"
#include "kernels/lora_weight/lora_weight_cuda.h"
#include "worker/nn/linear.h"

namespace finetuned {

// What the layers of a model share.
struct CudaLinearContext {
  kernels::GemmCuda gemm;
  __nv_bfloat16* scratch = nullptr;  // the largest matrix_values() of all layers
  const void* loaded = nullptr;      // whose weight is in it; null after an adapter has changed
  int64_t pass = 0;                  // counts the times that adapters may have changed
  cudaStream_t stream = nullptr;
};

class CudaLinear {
 public:
  // Reads shapes and pointers of `linear`, which must outlive this object and keep its adapters.
  // The base is 4-bit or bf16 and has no bias, dimensions are multiples of 8.
  explicit CudaLinear(const FusedLinear& linear);

  int64_t in_features() const { return weight_.k; }
  int64_t out_features() const { return weight_.n; }
  // Columns after the values of a row: ranks of all parts, each rounded up to 8.
  int64_t spare() const { return weight_.rt; }
  // Gives the decoded weight memory of its own, matrix_values() that outlive this object, where it
  // stays; null takes it away. The values do not change, only the time.
  void SetMemory(__nv_bfloat16* memory);
  int64_t matrix_values() const { return (weight_.n + weight_.rt) * weight_.stride; }

  // y = x Wᵀ + adapters + residual. x [t, in | spare]: U is written; residual (null: none) has y's
  // stride.
  void Forward(CudaLinearContext& context, __nv_bfloat16* x, int64_t x_stride, int64_t t,
               __nv_bfloat16* y, int64_t y_stride, const __nv_bfloat16* residual) const;
  // dy [t, out | spare]: dS is written; dx [t, in], or null when nothing below is trained.
  void InputGradient(CudaLinearContext& context, __nv_bfloat16* dy, int64_t dy_stride, int64_t t,
                     __nv_bfloat16* dx, int64_t dx_stride) const;
  // From dy with dS and x with U: gradients of A and B, fp32, over `gradients` [gradient_values()].
  void AdapterGradients(CudaLinearContext& context, const __nv_bfloat16* dy, int64_t dy_stride,
                        const __nv_bfloat16* x, int64_t x_stride, int64_t t,
                        float* gradients) const;
  int64_t gradient_values() const { return gradient_values_; }
  // Views of `flat` from `offset` on: for each adapted part A's gradient [r, in], then B's [out,
  // r].
  void AppendGradientViews(const at::Tensor& flat, int64_t offset,
                           std::vector<at::Tensor>& views) const;

 private:
  const __nv_bfloat16* Load(CudaLinearContext& context) const;

  const FusedLinear& linear_;
  kernels::LoraWeight weight_;
  int64_t gradient_values_ = 0;
  __nv_bfloat16* own_ = nullptr;  // null: the scratch is used
  mutable bool own_has_base_ = false;
  mutable int64_t own_pass_ = -1;  // whose adapters own_ holds
};

}  // namespace finetuned
