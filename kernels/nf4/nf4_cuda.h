// nf4.h on a GPU: NF4 codes, block scales and dequantized values are the same bits. FP4 codes and
// the 8-bit codes of scales follow bitsandbytes' own GPU kernels, which near a midpoint do not
// always agree with its CPU code. Launchers take device pointers, sizes and a stream, do not
// synchronise, and throw std::runtime_error when a launch fails.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels/nf4/nf4.h"

namespace finetuned::kernels {

enum class FloatType { kFloat32, kBFloat16, kFloat16 };

// x [n] of `type` → packed, absmax as Quantize4Bit. One warp a block of values.
void Quantize4BitCuda(const void* x, FloatType type, int64_t n, int64_t blocksize, Code4 code,
                      uint8_t* packed, float* absmax, cudaStream_t stream);

// shifted [blocks] → codes, nested_absmax. One thread block per 256 scales. The code is the one
// nearest to the value itself, as bitsandbytes has it on a GPU; on the CPU it takes the nearest to
// a grid cell (nf4.cc), and about one scale in a thousand gets the neighbouring code.
void QuantizeScalesCuda(const float* shifted, int64_t blocks, uint8_t* codes, float* nested_absmax,
                        cudaStream_t stream);

// A rows × columns matrix, flattened row-major, into out with `out_stride` elements from row to
// row. absmax: fp32 scales, or with nested_absmax (not null) 8-bit codes of the dynamic map.
void Dequantize4BitCuda(const uint8_t* packed, const void* absmax, const float* nested_absmax,
                        float offset, int64_t rows, int64_t columns, int64_t out_stride,
                        int64_t blocksize, Code4 code, void* out, FloatType type,
                        cudaStream_t stream);

}  // namespace finetuned::kernels
