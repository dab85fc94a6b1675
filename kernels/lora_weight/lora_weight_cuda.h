// The matrix that a frozen linear layer with low-rank adapters multiplies with, laid out so that
// one product does both, forward and backward:
//
//        k        rt                 Y  = [X | U] · [W | sB]ᵀ      with U  = X Aᵀ   in X's spare
//        columns
//   ┌─────────┬────────┐  n          dX = [dY | dS] · [W ; A]      with dS = dY sB  in dY's
//   │    W    │   sB   │
//   ├─────────┼────────┤             s: alpha/r of each part. Parts (Q|K|V, gate|up) lie below each
//   │    A    │ unused │  rt         other in W; sB is block-diagonal, A's rows are in part order.
//   └─────────┴────────┘
//
// All is bf16, row-major. Rounding: A and s·B once from fp32; W as kernels/nf4/nf4.h (bit for bit).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/nf4/nf4.h"

namespace finetuned::kernels {

constexpr int kMaxLoraParts = 3;

// One part: rows [first_row, first_row + rows) of W, columns [first_column, first_column + rank) of
// sB and the same rows of A.
struct LoraWeightPart {
  int64_t rows = 0, first_row = 0;
  // The base: bf16 [rows, k], or 4-bit codes with scales.
  const __nv_bfloat16* dense = nullptr;
  const uint8_t* packed = nullptr;
  const void* absmax = nullptr;          // uint8 codes when nested_absmax is given, else fp32
  const float* nested_absmax = nullptr;  // one for 256 scales, or null
  float offset = 0;
  // The adapter: fp32 A [rank, k], B [rows, rank]; rank 0: none.
  const float* a = nullptr;
  const float* b = nullptr;
  float scaling = 0;
  int64_t rank = 0, first_column = 0;
};

struct LoraWeight {
  LoraWeightPart parts[kMaxLoraParts];
  int part_count = 0;
  int64_t n = 0, k = 0, rt = 0;  // k a multiple of 8
  int64_t stride = 0;            // elements from row to row, ≥ k + rt
  Code4 code = Code4::kNf4;      // of the quantized parts, whose blocks are of 64 values
};

// Fills the matrix [n + rt, stride] in one launch. with_base false leaves W as it is (a cached
// one); with_adapters false writes zeros for sB. Columns beyond k + rt and the unused corner are
// not written. Does not synchronise, throws std::runtime_error.
void FillLoraWeightCuda(const LoraWeight& weight, bool with_base, bool with_adapters,
                        __nv_bfloat16* out, cudaStream_t stream);

}  // namespace finetuned::kernels
