// One block a row. The first pass keeps a running maximum and a sum of exponentials in each thread
// (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018); the second reads the
// row again, from the cache.
#include <cmath>

#include "kernels/base/cuda_util.cuh"
#include "kernels/cross_entropy/cross_entropy_cuda.h"

namespace finetuned::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int64_t kIgnore = -100;

__global__ void __launch_bounds__(kThreads)
    CrossEntropyKernel(__nv_bfloat16* logits, int64_t stride, const int64_t* targets,
                       int vocabulary, bool gradient, float* losses) {
  __shared__ float maxima[32], sums[32];
  const int64_t row = blockIdx.x, target = targets[row];
  logits += row * stride;
  if (target == kIgnore) {
    if (threadIdx.x == 0) losses[row] = 0;
    if (gradient) {
      for (int at = threadIdx.x; at < vocabulary; at += kThreads) {
        logits[at] = __float2bfloat16_rn(0.0f);
      }
    }
    return;
  }
  const bool known = target >= 0 && target < vocabulary;
  const float at_target = known ? __bfloat162float(logits[target]) : NAN;

  float maximum = -INFINITY, sum = 0;
  for (int at = threadIdx.x * kVector; at < vocabulary; at += kThreads * kVector) {
    const Float8 x = LoadVector(logits + at);
    float largest = maximum;
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (at + j < vocabulary) largest = fmaxf(largest, x.v[j]);
    }
    if (largest == -INFINITY) continue;
    sum *= __expf(maximum - largest);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      if (at + j < vocabulary) sum += __expf(x.v[j] - largest);
    }
    maximum = largest;
  }
  const int lane = threadIdx.x % 32;
  float block_maximum = maximum;
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    block_maximum = fmaxf(block_maximum, __shfl_xor_sync(0xffffffffu, block_maximum, step));
  }
  if (lane == 0) maxima[threadIdx.x / 32] = block_maximum;
  __syncthreads();  // every warp's maximum is written
  block_maximum = maxima[0];
  for (int warp = 1; warp < kThreads / 32; ++warp) {
    block_maximum = fmaxf(block_maximum, maxima[warp]);
  }
  // A thread without columns has the maximum −∞ and the sum 0.
  const float total =
      BlockSum(maximum == -INFINITY ? 0.0f : sum * __expf(maximum - block_maximum), sums);
  const float log_sum = block_maximum + logf(total);
  if (threadIdx.x == 0) losses[row] = log_sum - at_target;
  if (!gradient) return;
  // BlockSum's barrier stands between the read of logits[target] and the writes here.
  for (int at = threadIdx.x * kVector; at < vocabulary; at += kThreads * kVector) {
    Float8 x = LoadVector(logits + at);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      x.v[j] = __expf(x.v[j] - log_sum) - (at + j == target ? 1.0f : 0.0f);
    }
    if (at + kVector <= vocabulary) {
      StoreVector(logits + at, x);
    } else {
      for (int j = 0; at + j < vocabulary; ++j) logits[at + j] = __float2bfloat16_rn(x.v[j]);
    }
  }
}

}  // namespace

void CrossEntropyCuda(__nv_bfloat16* logits, int64_t stride, const int64_t* targets, int64_t rows,
                      int64_t vocabulary, bool gradient, float* losses, cudaStream_t stream) {
  CheckArgument(stride % kVector == 0 && stride >= vocabulary,
                "cross-entropy on the GPU takes rows that begin at multiples of 8 values");
  if (rows == 0) return;
  CrossEntropyKernel<<<static_cast<unsigned int>(rows), kThreads, 0, stream>>>(
      logits, stride, targets, static_cast<int>(vocabulary), gradient, losses);
  CheckCuda(cudaGetLastError(), "cross-entropy");
}

}  // namespace finetuned::kernels
