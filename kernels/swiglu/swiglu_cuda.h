// swiglu.h on a GPU in bf16: act = silu(gate) · up, computed in fp32 and rounded once. gate_up
// [t, 2f] = gate | up. Strides in elements, multiples of 8; f is a multiple of 8. Launchers do not
// synchronise and throw std::runtime_error.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace finetuned::kernels {

void SwiGluForwardCuda(const __nv_bfloat16* gate_up, int64_t gate_up_stride, int64_t t, int64_t f,
                       __nv_bfloat16* act, int64_t act_stride, cudaStream_t stream);

// d_gate | d_up replace gate | up. With `recompute`, act replaces d_act: the bits that the forward
// pass gave.
void SwiGluBackwardCuda(__nv_bfloat16* gate_up, int64_t gate_up_stride, int64_t t, int64_t f,
                        __nv_bfloat16* d_act, int64_t d_act_stride, bool recompute,
                        cudaStream_t stream);

}  // namespace finetuned::kernels
