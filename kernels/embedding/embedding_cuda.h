// Rows of a bf16 table by token: out[i] = table[ids[i]]. ids [t] int64, table [v, d], out [t, d]
// with out_stride; d a multiple of 8. An id outside the table gives a row of NaN. The table may be
// pinned host memory. Does not synchronise, throws std::runtime_error.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace finetuned::kernels {

void EmbeddingCuda(const int64_t* ids, const __nv_bfloat16* table, int64_t vocabulary, int64_t t,
                   int64_t d, __nv_bfloat16* out, int64_t out_stride, cudaStream_t stream);

}  // namespace finetuned::kernels
