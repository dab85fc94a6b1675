// 4-bit weights as bitsandbytes has them (functional.py quantize_4bit, and its CPU and CUDA kernels; Dettmers et al.,
// "QLoRA", 2023): blocks of 64 values over the row-major flattened tensor, each scaled by its absolute maximum; two
// codes a byte, the even element in the high nibble. Double quantization stores the block scales in 8 bits: their mean is
// subtracted, blocks of 256 scales share an fp32 absmax, codes are bitsandbytes' signed dynamic map.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace finetuned {

enum class QuantType { kNf4, kFp4 };

struct QuantizedTensor {
  at::Tensor packed;         // uint8 [ceil(numel / 2)]
  at::Tensor absmax;         // fp32 [blocks], or with double quantization uint8 [blocks]
  at::Tensor nested_absmax;  // fp32 [ceil(blocks / 256)]; undefined without double quantization
  float nested_offset = 0;   // mean of the block scales
  std::vector<int64_t> shape;
  QuantType type = QuantType::kNf4;
  int64_t blocksize = 64;

  bool double_quantized() const { return nested_absmax.defined(); }
  int64_t numel() const;
  int64_t bytes() const;  // packed + scales
};

// weight: any shape, fp32, bf16 or fp16, contiguous, CPU or CUDA; the result lives on the same device and equals
// bitsandbytes' byte for byte. TORCH_CHECK on other dtypes.
QuantizedTensor Quantize4Bit(const at::Tensor& weight, QuantType type, bool double_quant);

// → tensor of `shape` in `dtype` (fp32, bf16, fp16), equal to bitsandbytes' dequantize_4bit bit for bit.
at::Tensor Dequantize4Bit(const QuantizedTensor& quantized, at::ScalarType dtype);

// Dequantizes into rows of `out` (2-D, last dimension contiguous, row stride free), so that fused projections share one
// scratch matrix. quantized.shape must be out's shape.
void Dequantize4BitInto(const QuantizedTensor& quantized, at::Tensor out);

}  // namespace finetuned
