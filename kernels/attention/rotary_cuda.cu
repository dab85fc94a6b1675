#include "kernels/attention/rotary_cuda.h"
#include "kernels/base/cuda_util.cuh"

namespace finetuned::kernels {
namespace {

constexpr int kThreads = 256;

// One thread eight pairs of a head.
__global__ void RotateKernel(__nv_bfloat16* x, int64_t stride, int64_t total, int per_row, int half,
                             const float* cos, const float* sin, float sign) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i >= total) return;
  const int64_t row = i / per_row;
  const int within = static_cast<int>(i % per_row), per_head = half / kVector;
  const int pair = within % per_head * kVector;
  __nv_bfloat16* at = x + row * stride + within / per_head * (2 * half) + pair;
  const float4* c4 = reinterpret_cast<const float4*>(cos + row * half + pair);
  const float4* s4 = reinterpret_cast<const float4*>(sin + row * half + pair);
  const float4 c_low = c4[0], c_high = c4[1], s_low = s4[0], s_high = s4[1];
  const float c[kVector] = {c_low.x,  c_low.y,  c_low.z,  c_low.w,
                            c_high.x, c_high.y, c_high.z, c_high.w};
  const float s[kVector] = {s_low.x,  s_low.y,  s_low.z,  s_low.w,
                            s_high.x, s_high.y, s_high.z, s_high.w};
  const Float8 a = LoadVector(at), b = LoadVector(at + half);
  Float8 first, second;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    first.v[j] = a.v[j] * c[j] - sign * b.v[j] * s[j];
    second.v[j] = b.v[j] * c[j] + sign * a.v[j] * s[j];
  }
  StoreVector(at, first);
  StoreVector(at + half, second);
}

}  // namespace

void RotateInPlaceCuda(__nv_bfloat16* x, int64_t stride, int64_t t, int64_t heads, int64_t head_dim,
                       const float* cos, const float* sin, bool inverse, cudaStream_t stream) {
  CheckArgument(head_dim % (2 * kVector) == 0,
                "rotary embedding on the GPU takes heads of a multiple of 16 values");
  const int64_t per_row = heads * head_dim / (2 * kVector), total = t * per_row;
  if (total == 0) return;
  RotateKernel<<<BlocksFor(total, kThreads), kThreads, 0, stream>>>(
      x, stride, total, static_cast<int>(per_row), static_cast<int>(head_dim / 2), cos, sin,
      inverse ? -1.0f : 1.0f);
  CheckCuda(cudaGetLastError(), "rotary embedding");
}

}  // namespace finetuned::kernels
