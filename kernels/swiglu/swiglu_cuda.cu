// One thread eight columns of a row. Bound by memory, so the sigmoid is the fast one: the exact
// division alone would take longer than the loads.
#include "kernels/base/cuda_util.cuh"
#include "kernels/swiglu/swiglu_cuda.h"

namespace finetuned::kernels {
namespace {

constexpr int kThreads = 256;

__device__ float Sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

__global__ void ForwardKernel(const __nv_bfloat16* gate_up, int64_t gate_up_stride, int64_t total,
                              int f, __nv_bfloat16* act, int64_t act_stride) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= total) return;
  const int per_row = f / kVector;
  const int64_t row = i / per_row;
  const int column = static_cast<int>(i % per_row) * kVector;
  const __nv_bfloat16* from = gate_up + row * gate_up_stride + column;
  const Float8 gate = LoadVector(from), up = LoadVector(from + f);
  Float8 out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) out.v[j] = gate.v[j] * Sigmoid(gate.v[j]) * up.v[j];
  StoreVector(act + row * act_stride + column, out);
}

template <bool kRecompute>
__global__ void BackwardKernel(__nv_bfloat16* gate_up, int64_t gate_up_stride, int64_t total, int f,
                               __nv_bfloat16* d_act, int64_t d_act_stride) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= total) return;
  const int per_row = f / kVector;
  const int64_t row = i / per_row;
  const int column = static_cast<int>(i % per_row) * kVector;
  __nv_bfloat16* at = gate_up + row * gate_up_stride + column;
  __nv_bfloat16* d_at = d_act + row * d_act_stride + column;
  const Float8 gate = LoadVector(at), up = LoadVector(at + f), d = LoadVector(d_at);
  Float8 d_gate, d_up, act;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const float s = Sigmoid(gate.v[j]), silu = gate.v[j] * s;
    d_gate.v[j] = d.v[j] * up.v[j] * (s + silu * (1.0f - s));
    d_up.v[j] = d.v[j] * silu;
    act.v[j] = silu * up.v[j];
  }
  StoreVector(at, d_gate);
  StoreVector(at + f, d_up);
  if (kRecompute) StoreVector(d_at, act);
}

}  // namespace

void SwiGluForwardCuda(const __nv_bfloat16* gate_up, int64_t gate_up_stride, int64_t t, int64_t f,
                       __nv_bfloat16* act, int64_t act_stride, cudaStream_t stream) {
  CheckArgument(f % kVector == 0, "SwiGLU on the GPU takes a multiple of 8 columns");
  const int64_t total = t * (f / kVector);
  if (total == 0) return;
  ForwardKernel<<<BlocksFor(total, kThreads), kThreads, 0, stream>>>(
      gate_up, gate_up_stride, total, static_cast<int>(f), act, act_stride);
  CheckCuda(cudaGetLastError(), "SwiGLU");
}

void SwiGluBackwardCuda(__nv_bfloat16* gate_up, int64_t gate_up_stride, int64_t t, int64_t f,
                        __nv_bfloat16* d_act, int64_t d_act_stride, bool recompute,
                        cudaStream_t stream) {
  CheckArgument(f % kVector == 0, "SwiGLU on the GPU takes a multiple of 8 columns");
  const int64_t total = t * (f / kVector);
  if (total == 0) return;
  const auto kernel = recompute ? BackwardKernel<true> : BackwardKernel<false>;
  kernel<<<BlocksFor(total, kThreads), kThreads, 0, stream>>>(
      gate_up, gate_up_stride, total, static_cast<int>(f), d_act, d_act_stride);
  CheckCuda(cudaGetLastError(), "SwiGLU backward");
}

}  // namespace finetuned::kernels
