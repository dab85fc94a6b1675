#include "kernels/base/cuda_util.cuh"
#include "kernels/embedding/embedding_cuda.h"

namespace finetuned::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void GatherKernel(const int64_t* ids, const __nv_bfloat16* table, int64_t vocabulary,
                             int d, __nv_bfloat16* out, int64_t out_stride) {
  const int64_t row = blockIdx.x, id = ids[row];
  const bool known = id >= 0 && id < vocabulary;
  for (int at = threadIdx.x * kVector; at < d; at += kThreads * kVector) {
    uint4 value = make_uint4(~0u, ~0u, ~0u, ~0u);  // bf16 NaN
    if (known) value = *reinterpret_cast<const uint4*>(table + id * d + at);
    *reinterpret_cast<uint4*>(out + row * out_stride + at) = value;
  }
}

}  // namespace

void EmbeddingCuda(const int64_t* ids, const __nv_bfloat16* table, int64_t vocabulary, int64_t t,
                   int64_t d, __nv_bfloat16* out, int64_t out_stride, cudaStream_t stream) {
  CheckArgument(d % kVector == 0, "embedding on the GPU takes rows of a multiple of 8 values");
  if (t == 0) return;
  GatherKernel<<<static_cast<unsigned int>(t), kThreads, 0, stream>>>(
      ids, table, vocabulary, static_cast<int>(d), out, out_stride);
  CheckCuda(cudaGetLastError(), "embedding");
}

}  // namespace finetuned::kernels
