// What the CUDA kernels share: checked launches, eight bf16 values at a time, sums over a block in
// a fixed order.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace finetuned::kernels {

inline void CheckCuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}
inline void CheckArgument(bool right, const char* what) {
  if (!right) throw std::runtime_error(what);
}

// Blocks of `size` threads that cover n threads.
inline unsigned int BlocksFor(int64_t n, int size) {
  return static_cast<unsigned int>((n + size - 1) / size);
}

#ifdef __CUDACC__

constexpr int kVector = 8;  // bf16 values of a 16-byte access

struct Float8 {
  float v[kVector];
};

__device__ inline Float8 LoadVector(const __nv_bfloat16* from) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&raw);
  Float8 out;
#pragma unroll
  for (int i = 0; i < kVector / 2; ++i) {
    const float2 pair = __bfloat1622float2(pairs[i]);
    out.v[2 * i] = pair.x;
    out.v[2 * i + 1] = pair.y;
  }
  return out;
}

__device__ inline void StoreVector(__nv_bfloat16* to, const Float8& value) {
  uint4 raw;
  auto* pairs = reinterpret_cast<__nv_bfloat162*>(&raw);
#pragma unroll
  for (int i = 0; i < kVector / 2; ++i) {
    pairs[i] = __floats2bfloat162_rn(value.v[2 * i], value.v[2 * i + 1]);
  }
  *reinterpret_cast<uint4*>(to) = raw;
}

__device__ inline float WarpSum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// The sum over all threads of a block, the same in every thread. Any number of whole warps up to
// 32; `shared` holds 32 floats that nothing else uses until the next barrier.
__device__ inline float BlockSum(float value, float* shared) {
  value = WarpSum(value);
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  if (lane == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();  // every warp's sum is written before any thread reads it
  return WarpSum(lane < warps ? shared[lane] : 0.0f);
}

#endif

}  // namespace finetuned::kernels
