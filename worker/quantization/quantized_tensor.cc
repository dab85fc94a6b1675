#include "worker/quantization/quantized_tensor.h"

#include <ATen/Functions.h>

#include <functional>
#include <numeric>
#include <tuple>

#include "kernels/base/parallel.h"
#include "kernels/nf4/nf4.h"
#ifdef FINETUNED_CUDA
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/nf4/nf4_cuda.h"
#endif

namespace finetuned {
namespace {

kernels::Code4 KernelCode(QuantType type) {
  return type == QuantType::kNf4 ? kernels::Code4::kNf4 : kernels::Code4::kFp4;
}

int64_t Blocks(int64_t n, int64_t blocksize) { return (n + blocksize - 1) / blocksize; }

void CheckFloating(at::ScalarType dtype, const char* what) {
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf, what,
              " must be float32, bfloat16 or float16, not ", c10::toString(dtype));
}

#ifdef FINETUNED_CUDA
kernels::FloatType KernelType(at::ScalarType dtype) {
  return dtype == at::kFloat      ? kernels::FloatType::kFloat32
         : dtype == at::kBFloat16 ? kernels::FloatType::kBFloat16
                                  : kernels::FloatType::kFloat16;
}
#endif

[[maybe_unused]] void CheckCudaBuilt(const at::Tensor& tensor) {
#ifndef FINETUNED_CUDA
  TORCH_CHECK(!tensor.is_cuda(),
              "this worker was built without its CUDA kernels (FINETUNED_CUDA=OFF)");
#endif
}

// Scales of all blocks in fp32 on the host.
at::Tensor HostScales(const QuantizedTensor& q) {
  if (!q.double_quantized()) return q.absmax;
  at::Tensor absmax = at::empty({q.absmax.numel()}, at::kFloat);
  kernels::DequantizeScales(q.absmax.const_data_ptr<uint8_t>(),
                            q.nested_absmax.const_data_ptr<float>(), q.nested_offset,
                            q.absmax.numel(), absmax.mutable_data_ptr<float>());
  return absmax;
}

}  // namespace

int64_t QuantizedTensor::numel() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

int64_t QuantizedTensor::bytes() const {
  return static_cast<int64_t>(
      packed.nbytes() + absmax.nbytes() +
      (nested_absmax.defined() ? nested_absmax.nbytes() + sizeof(float) : 0));
}

QuantizedTensor Quantize4Bit(const at::Tensor& weight, QuantType type, bool double_quant) {
  CheckFloating(weight.scalar_type(), "a tensor to quantize");
  TORCH_CHECK(weight.is_contiguous(), "a tensor to quantize must be contiguous");
  CheckCudaBuilt(weight);
  at::NoGradGuard no_grad;
  const int64_t n = weight.numel();
  QuantizedTensor q;
  q.type = type;
  q.shape = weight.sizes().vec();
  const int64_t blocks = Blocks(n, q.blocksize);
  const auto bytes = weight.options().dtype(at::kByte), floats = weight.options().dtype(at::kFloat);
  q.packed = at::empty({(n + 1) / 2}, bytes);
  q.absmax = at::empty({blocks}, floats);
  if (n == 0) return q;
  if (weight.is_cuda()) {
#ifdef FINETUNED_CUDA
    const c10::cuda::CUDAGuard guard(weight.device());
    kernels::Quantize4BitCuda(weight.const_data_ptr(), KernelType(weight.scalar_type()), n,
                              q.blocksize, KernelCode(type), q.packed.mutable_data_ptr<uint8_t>(),
                              q.absmax.mutable_data_ptr<float>(),
                              c10::cuda::getCurrentCUDAStream());
#endif
  } else {
    const at::Tensor full = weight.to(at::kFloat);
    kernels::Quantize4Bit(full.const_data_ptr<float>(), n, q.blocksize, KernelCode(type),
                          q.packed.mutable_data_ptr<uint8_t>(), q.absmax.mutable_data_ptr<float>());
  }
  if (!double_quant) return q;
  // torch's own mean, as bitsandbytes takes it: the order of its additions decides the last bit.
  const at::Tensor offset = q.absmax.mean();
  const at::Tensor shifted = q.absmax - offset;
  q.nested_offset = offset.item<float>();
  at::Tensor codes = at::empty({blocks}, bytes);
  q.nested_absmax = at::empty({Blocks(blocks, kernels::kScaleBlock)}, floats);
  if (weight.is_cuda()) {
#ifdef FINETUNED_CUDA
    kernels::QuantizeScalesCuda(
        shifted.const_data_ptr<float>(), blocks, codes.mutable_data_ptr<uint8_t>(),
        q.nested_absmax.mutable_data_ptr<float>(), c10::cuda::getCurrentCUDAStream());
#endif
  } else {
    kernels::QuantizeScales(shifted.const_data_ptr<float>(), blocks,
                            codes.mutable_data_ptr<uint8_t>(),
                            q.nested_absmax.mutable_data_ptr<float>());
  }
  q.absmax = codes;
  return q;
}

at::Tensor Dequantize4Bit(const QuantizedTensor& quantized, at::ScalarType dtype) {
  CheckFloating(dtype, "the dtype to dequantize to");
  at::Tensor out = at::empty({1, quantized.numel()}, quantized.packed.options().dtype(dtype));
  QuantizedTensor flat = quantized;
  flat.shape = {1, quantized.numel()};
  Dequantize4BitInto(flat, out);
  return out.view(quantized.shape);
}

void Dequantize4BitInto(const QuantizedTensor& quantized, at::Tensor out) {
  CheckFloating(out.scalar_type(), "the dtype to dequantize to");
  TORCH_CHECK(out.dim() == 2 && out.sizes() == at::IntArrayRef(quantized.shape),
              "dequantizing a tensor of ", at::IntArrayRef(quantized.shape), " into one of ",
              out.sizes());
  TORCH_CHECK(out.size(1) <= 1 || out.stride(1) == 1, "rows to dequantize into must be contiguous");
  TORCH_CHECK(out.device() == quantized.packed.device(), "dequantizing across devices");
  CheckCudaBuilt(out);
  const int64_t rows = out.size(0), columns = out.size(1), stride = out.stride(0);
  if (rows * columns == 0) return;
  if (out.is_cuda()) {
#ifdef FINETUNED_CUDA
    const c10::cuda::CUDAGuard guard(out.device());
    kernels::Dequantize4BitCuda(
        quantized.packed.const_data_ptr<uint8_t>(), quantized.absmax.const_data_ptr(),
        quantized.double_quantized() ? quantized.nested_absmax.const_data_ptr<float>() : nullptr,
        quantized.nested_offset, rows, columns, stride, quantized.blocksize,
        KernelCode(quantized.type), out.mutable_data_ptr(), KernelType(out.scalar_type()),
        c10::cuda::getCurrentCUDAStream());
#endif
    return;
  }
  const at::Tensor scales = HostScales(quantized);
  const uint8_t* packed = quantized.packed.const_data_ptr<uint8_t>();
  const float* absmax = scales.const_data_ptr<float>();
  const kernels::Code4 code = KernelCode(quantized.type);
  const int64_t blocksize = quantized.blocksize;
  // Pieces of whole bytes: rows may start at odd elements, so they are cut from the flat array.
  const bool in_place = out.scalar_type() == at::kFloat && (stride == columns || columns % 2 == 0);
  at::Tensor staged = in_place ? out : at::empty({rows, columns}, at::kFloat);
  float* to = staged.mutable_data_ptr<float>();
  const int64_t to_stride = staged.stride(0);
  if (to_stride == columns) {
    kernels::ParallelFor((rows * columns + 4095) / 4096, 1, [=](int64_t first, int64_t last) {
      const int64_t begin = first * 4096, count = std::min(last * 4096, rows * columns) - begin;
      kernels::Dequantize4Bit(packed, absmax, begin, count, blocksize, code, to + begin);
    });
  } else {
    kernels::ParallelFor(rows, 1, [=](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row) {
        kernels::Dequantize4Bit(packed, absmax, row * columns, columns, blocksize, code,
                                to + row * to_stride);
      }
    });
  }
  if (!in_place) out.copy_(staged);
}

}  // namespace finetuned
