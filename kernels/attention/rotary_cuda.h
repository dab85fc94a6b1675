// Rotary position embedding of attention.h on a GPU, in place, bf16: pairs (j, j + e/2) of each of
// the first `heads` heads of a row are turned by the row's angles; `inverse` turns them back, which
// is the gradient. x [t, heads · e] with `stride` elements from row to row; cos, sin [t, e/2] fp32.
// e is a multiple of 16. Does not synchronise, throws std::runtime_error.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace finetuned::kernels {

void RotateInPlaceCuda(__nv_bfloat16* x, int64_t stride, int64_t t, int64_t heads, int64_t head_dim,
                       const float* cos, const float* sin, bool inverse, cudaStream_t stream);

}  // namespace finetuned::kernels
