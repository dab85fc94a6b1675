// rms_norm.h on a GPU in bf16. The residual addition is not here: the product before the norm makes
// it (kernels/base/gemm_cuda.h). All in fp32, rounded once at the end. Pointers are device memory,
// rows begin at multiples of 16 bytes, d is a multiple of 8 up to 16,384. Launchers do not
// synchronise and throw std::runtime_error. The same inputs give the same bits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace finetuned::kernels {

// y = weight · x · rstd, rstd = 1/√(mean(x²) + eps). x [t, d]; y [t, d] with y_stride from row to
// row; rstd [t] fp32, kept for the backward pass.
void RmsNormForwardCuda(const __nv_bfloat16* x, const __nv_bfloat16* weight, float eps, int64_t t,
                        int64_t d, int64_t y_stride, __nv_bfloat16* y, float* rstd,
                        cudaStream_t stream);

// dx = *scale · rstd · (g − x̂ · mean(g · x̂)) + residual, with g = dy · weight and x̂ = x · rstd.
// dy, x [t, d]; residual [t, d] or null (0); scale on the device, or null (1); strides in elements.
// dx may be residual.
void RmsNormBackwardCuda(const __nv_bfloat16* dy, const __nv_bfloat16* x,
                         const __nv_bfloat16* weight, const float* rstd,
                         const __nv_bfloat16* residual, int64_t residual_stride, const float* scale,
                         int64_t t, int64_t d, int64_t dx_stride, __nv_bfloat16* dx,
                         cudaStream_t stream);

}  // namespace finetuned::kernels
