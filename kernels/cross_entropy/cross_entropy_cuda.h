// cross_entropy.h on a GPU: bf16 logits, sums in fp32. logits [rows, v] with `stride` elements from
// row to row, a multiple of 8; targets [rows] int64, −100 where nothing is trained. losses [rows]:
// −log softmax(logits)[target], 0 at −100, NaN at any other target outside [0, v). With `gradient`,
// logits are replaced by softmax − onehot (0 in rows of −100). Does not synchronise, throws
// std::runtime_error.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace finetuned::kernels {

void CrossEntropyCuda(__nv_bfloat16* logits, int64_t stride, const int64_t* targets, int64_t rows,
                      int64_t vocabulary, bool gradient, float* losses, cudaStream_t stream);

}  // namespace finetuned::kernels
