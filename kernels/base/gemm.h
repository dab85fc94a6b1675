// Single-precision matrix product on strided row-major matrices through the BLAS that LibTorch
// carries. Inside a parallel region it runs on the calling thread alone.
#pragma once

#include <cstdint>

namespace finetuned::kernels {

// C[m, n] = alpha · op(A) op(B) + beta · C with op(X) = X or Xᵀ; lda, ldb, ldc: row strides in
// elements. With beta 0, C may hold anything.
void Gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
          const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c,
          int64_t ldc);

}  // namespace finetuned::kernels
