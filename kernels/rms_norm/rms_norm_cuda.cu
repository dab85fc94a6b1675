// One block of 256 threads a row, which it holds in registers: each value is read once.
#include "kernels/base/cuda_util.cuh"
#include "kernels/rms_norm/rms_norm_cuda.h"

namespace finetuned::kernels {
namespace {

constexpr int kThreads = 256;

template <int kPerThread>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(const __nv_bfloat16* x, const __nv_bfloat16* weight, float eps, int d,
                  int64_t y_stride, __nv_bfloat16* y, float* rstd) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x;
  x += row * d;
  Float8 values[kPerThread];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int at = (i * kThreads + threadIdx.x) * kVector;
    if (at < d) {
      values[i] = LoadVector(x + at);
#pragma unroll
      for (float v : values[i].v) sum += v * v;
    }
  }
  const float r = rsqrtf(BlockSum(sum, shared) / static_cast<float>(d) + eps);
  if (threadIdx.x == 0) rstd[row] = r;
  y += row * y_stride;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int at = (i * kThreads + threadIdx.x) * kVector;
    if (at < d) {
      const Float8 w = LoadVector(weight + at);
#pragma unroll
      for (int j = 0; j < kVector; ++j) values[i].v[j] *= r * w.v[j];
      StoreVector(y + at, values[i]);
    }
  }
}

template <int kPerThread>
__global__ void __launch_bounds__(kThreads)
    BackwardKernel(const __nv_bfloat16* dy, const __nv_bfloat16* x, const __nv_bfloat16* weight,
                   const float* rstd, const __nv_bfloat16* residual, int64_t residual_stride,
                   const float* scale, int d, int64_t dx_stride, __nv_bfloat16* dx) {
  __shared__ float shared[32];
  const int64_t row = blockIdx.x;
  const float r = rstd[row];
  Float8 g[kPerThread], normalised[kPerThread];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int at = (i * kThreads + threadIdx.x) * kVector;
    if (at < d) {
      g[i] = LoadVector(dy + row * d + at);
      normalised[i] = LoadVector(x + row * d + at);
      const Float8 w = LoadVector(weight + at);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        g[i].v[j] *= w.v[j];
        normalised[i].v[j] *= r;
        sum += g[i].v[j] * normalised[i].v[j];
      }
    }
  }
  const float mean = BlockSum(sum, shared) / static_cast<float>(d);
  const float factor = scale == nullptr ? r : r * *scale;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int at = (i * kThreads + threadIdx.x) * kVector;
    if (at < d) {
      Float8 out = {};
      if (residual != nullptr) out = LoadVector(residual + row * residual_stride + at);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        out.v[j] += factor * (g[i].v[j] - normalised[i].v[j] * mean);
      }
      StoreVector(dx + row * dx_stride + at, out);
    }
  }
}

// Calls launch with the number of vectors a thread holds for rows of d.
template <typename Launch>
void BySize(int64_t d, const Launch& launch) {
  CheckArgument(d % kVector == 0 && d <= 8 * kThreads * kVector,
                "RMSNorm on the GPU takes rows of a multiple of 8 values, at most 16384");
  const int64_t vectors = (d / kVector + kThreads - 1) / kThreads;
  if (vectors <= 1) {
    launch(std::integral_constant<int, 1>());
  } else if (vectors <= 2) {
    launch(std::integral_constant<int, 2>());
  } else if (vectors <= 4) {
    launch(std::integral_constant<int, 4>());
  } else {
    launch(std::integral_constant<int, 8>());
  }
}

}  // namespace

void RmsNormForwardCuda(const __nv_bfloat16* x, const __nv_bfloat16* weight, float eps, int64_t t,
                        int64_t d, int64_t y_stride, __nv_bfloat16* y, float* rstd,
                        cudaStream_t stream) {
  if (t == 0) return;
  BySize(d, [&](auto per_thread) {
    ForwardKernel<per_thread.value><<<static_cast<unsigned int>(t), kThreads, 0, stream>>>(
        x, weight, eps, static_cast<int>(d), y_stride, y, rstd);
  });
  CheckCuda(cudaGetLastError(), "RMSNorm");
}

void RmsNormBackwardCuda(const __nv_bfloat16* dy, const __nv_bfloat16* x,
                         const __nv_bfloat16* weight, const float* rstd,
                         const __nv_bfloat16* residual, int64_t residual_stride, const float* scale,
                         int64_t t, int64_t d, int64_t dx_stride, __nv_bfloat16* dx,
                         cudaStream_t stream) {
  if (t == 0) return;
  BySize(d, [&](auto per_thread) {
    BackwardKernel<per_thread.value><<<static_cast<unsigned int>(t), kThreads, 0, stream>>>(
        dy, x, weight, rstd, residual, residual_stride, scale, static_cast<int>(d), dx_stride, dx);
  });
  CheckCuda(cudaGetLastError(), "RMSNorm backward");
}

}  // namespace finetuned::kernels
