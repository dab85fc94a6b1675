// 4-bit block quantization as bitsandbytes 0.50 defines it (backends/default/ops.py quantize_4bit;
// csrc/cpu_ops.cpp for the 8-bit map of double quantization). Plain C++ here; nf4_cuda.h has the
// same for a GPU.
//
// A tensor is a flat array of n values in blocks of `blocksize`; block b has scale absmax[b] = max
// |x|. Each value is scaled by the reciprocal of its block's absmax, clamped to [−1, 1], and coded
// by the number of midpoints between code values that lie strictly below it. The last block, if
// shorter, divides by max(absmax, 1e-38) instead and stores that. Two codes a byte, the even
// element in the high nibble; an odd tail is padded with the code of zero.
#pragma once

#include <cstdint>

namespace finetuned::kernels {

enum class Code4 { kNf4, kFp4 };
constexpr int64_t kScaleBlock =
    256;  // block scales that share one fp32 absmax under double quantization

// The 16 values by code, and the 15 midpoints between them in ascending order with the code of each
// interval.
extern const float kNf4Values[16], kFp4Values[16];
extern const float kNf4Midpoints[15], kFp4Midpoints[15];
extern const uint8_t kFp4Order[16];
// bitsandbytes' signed dynamic 8-bit map (functional.py create_dynamic_map), ascending.
const float* DynamicMap();

// x [n] → packed [(n + 1) / 2], absmax [ceil(n / blocksize)]. Threaded over blocks; blocksize is
// even.
void Quantize4Bit(const float* x, int64_t n, int64_t blocksize, Code4 code, uint8_t* packed,
                  float* absmax);

// Elements [begin, begin + count) → fp32, each value · absmax of its block. begin is even.
void Dequantize4Bit(const uint8_t* packed, const float* absmax, int64_t begin, int64_t count,
                    int64_t blocksize, Code4 code, float* out);

// Block scales less their mean → codes of the dynamic map, blocks of kScaleBlock. shifted [blocks],
// codes [blocks], nested_absmax [ceil(blocks / 256)].
void QuantizeScales(const float* shifted, int64_t blocks, uint8_t* codes, float* nested_absmax);
// absmax [blocks] = map[code] · nested_absmax + offset, rounded after each operation.
void DequantizeScales(const uint8_t* codes, const float* nested_absmax, float offset,
                      int64_t blocks, float* absmax);

}  // namespace finetuned::kernels
