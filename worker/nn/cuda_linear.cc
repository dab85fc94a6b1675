#include "worker/nn/cuda_linear.h"

#include <ATen/Functions.h>

namespace finetuned {
namespace {

using kernels::GemmMatrix;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Rows that begin at multiples of 128 bytes.
constexpr int64_t kRowUnit = 64;
constexpr int64_t kColumnUnit = 8;  // 16 bytes: what the products and the kernels can address

GemmMatrix Matrix(const void* data, int64_t rows, int64_t columns, int64_t stride) {
  return {const_cast<void*>(data), rows, columns, stride};
}

}  // namespace

CudaLinear::CudaLinear(const FusedLinear& linear) : linear_(linear) {
  const std::vector<LinearPart>& parts = linear.parts();
  TORCH_CHECK(parts.size() <= kernels::kMaxLoraParts, parts.front().name, ": too many fused parts");
  weight_.part_count = static_cast<int>(parts.size());
  weight_.k = linear.in_features();
  weight_.n = linear.out_features();
  int64_t row = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const LinearPart& from = parts[i];
    kernels::LoraWeightPart& part = weight_.parts[i];
    part.first_row = row;
    part.rows = from.out_features;
    row += from.out_features;
    if (from.quantized) {
      const QuantizedTensor& quantized = *from.quantized;
      TORCH_CHECK(quantized.blocksize == 64, from.name, ": quantization blocks of 64 are needed");
      weight_.code =
          quantized.type == QuantType::kNf4 ? kernels::Code4::kNf4 : kernels::Code4::kFp4;
      part.packed = quantized.packed.const_data_ptr<uint8_t>();
      part.absmax = quantized.absmax.const_data_ptr();
      if (quantized.double_quantized())
        part.nested_absmax = quantized.nested_absmax.const_data_ptr<float>();
      part.offset = quantized.nested_offset;
    } else {
      TORCH_CHECK(from.weight.scalar_type() == at::kBFloat16, from.name,
                  ": the base must be bfloat16 or 4-bit");
      part.dense = static_cast<const __nv_bfloat16*>(from.weight.const_data_ptr());
    }
    if (from.lora == nullptr) continue;
    part.a = from.lora->a.const_data_ptr<float>();
    part.b = from.lora->b.const_data_ptr<float>();
    part.scaling = static_cast<float>(from.lora->scaling);
    part.rank = from.lora->a.size(0);
    part.first_column = weight_.rt;
    weight_.rt += RoundUp(part.rank, kColumnUnit);
    gradient_values_ += part.rows * part.rank;
  }
  gradient_values_ = RoundUp(gradient_values_ + weight_.rt * weight_.k, kRowUnit);
  weight_.stride = RoundUp(weight_.k + weight_.rt, kRowUnit);
}

void CudaLinear::SetMemory(__nv_bfloat16* memory) {
  own_ = memory;
  own_has_base_ = false;
  own_pass_ = -1;
}

const __nv_bfloat16* CudaLinear::Load(CudaLinearContext& context) const {
  const bool adapters = linear_.adapters_enabled();
  if (own_ == nullptr) {
    if (context.loaded != this)
      kernels::FillLoraWeightCuda(weight_, /*with_base=*/true, adapters, context.scratch,
                                  context.stream);
    context.loaded = this;
    return context.scratch;
  }
  if (own_pass_ != context.pass) {
    kernels::FillLoraWeightCuda(weight_, !own_has_base_, adapters, own_, context.stream);
    own_has_base_ = true;
    own_pass_ = context.pass;
  }
  return own_;
}

void CudaLinear::Forward(CudaLinearContext& context, __nv_bfloat16* x, int64_t x_stride, int64_t t,
                         __nv_bfloat16* y, int64_t y_stride, const __nv_bfloat16* residual) const {
  const __nv_bfloat16* matrix = Load(context);
  const int64_t n = weight_.n, k = weight_.k, rt = weight_.rt;
  if (rt > 0) {
    context.gemm.Multiply(
        Matrix(x, t, k, x_stride), Matrix(matrix + n * weight_.stride, rt, k, weight_.stride),
        Matrix(x + k, t, rt, x_stride), nullptr, {.transpose_b = true}, context.stream);
  }
  context.gemm.Multiply(Matrix(x, t, k + rt, x_stride), Matrix(matrix, n, k + rt, weight_.stride),
                        Matrix(y, t, n, y_stride), residual, {.transpose_b = true}, context.stream);
}

void CudaLinear::InputGradient(CudaLinearContext& context, __nv_bfloat16* dy, int64_t dy_stride,
                               int64_t t, __nv_bfloat16* dx, int64_t dx_stride) const {
  const __nv_bfloat16* matrix = Load(context);
  const int64_t n = weight_.n, k = weight_.k, rt = weight_.rt;
  if (rt > 0) {
    context.gemm.Multiply(Matrix(dy, t, n, dy_stride), Matrix(matrix + k, n, rt, weight_.stride),
                          Matrix(dy + n, t, rt, dy_stride), nullptr, {}, context.stream);
  }
  if (dx == nullptr) return;
  context.gemm.Multiply(Matrix(dy, t, n + rt, dy_stride), Matrix(matrix, n + rt, k, weight_.stride),
                        Matrix(dx, t, k, dx_stride), nullptr, {}, context.stream);
}

void CudaLinear::AdapterGradients(CudaLinearContext& context, const __nv_bfloat16* dy,
                                  int64_t dy_stride, const __nv_bfloat16* x, int64_t x_stride,
                                  int64_t t, float* gradients) const {
  const int64_t n = weight_.n, k = weight_.k, rt = weight_.rt;
  if (rt == 0) return;
  GemmMatrix da = Matrix(gradients, rt, k, k);
  da.fp32 = true;
  context.gemm.Multiply(Matrix(dy + n, t, rt, dy_stride), Matrix(x, t, k, x_stride), da, nullptr,
                        {.transpose_a = true}, context.stream);
  float* db_at = gradients + rt * k;
  for (int i = 0; i < weight_.part_count;) {
    const kernels::LoraWeightPart& part = weight_.parts[i];
    if (part.rank == 0) {
      ++i;
      continue;
    }
    // Parts of one shape that follow each other are one batched product.
    int count = 1;
    while (i + count < weight_.part_count && weight_.parts[i + count].rows == part.rows &&
           weight_.parts[i + count].rank == part.rank &&
           weight_.parts[i + count].scaling == part.scaling) {
      ++count;
    }
    GemmMatrix dy_part = Matrix(dy + part.first_row, t, part.rows, dy_stride);
    GemmMatrix u = Matrix(x + k + part.first_column, t, part.rank, x_stride);
    GemmMatrix db = Matrix(db_at, part.rows, part.rank, part.rank);
    dy_part.batch_stride = part.rows;
    u.batch_stride = RoundUp(part.rank, kColumnUnit);
    db.batch_stride = part.rows * part.rank;
    db.fp32 = true;
    context.gemm.Multiply(dy_part, u, db, nullptr,
                          {.transpose_a = true, .alpha = part.scaling, .batch = count},
                          context.stream);
    db_at += count * part.rows * part.rank;
    i += count;
  }
}

void CudaLinear::AppendGradientViews(const at::Tensor& flat, int64_t offset,
                                     std::vector<at::Tensor>& views) const {
  int64_t b_at = offset + weight_.rt * weight_.k;
  for (int i = 0; i < weight_.part_count; ++i) {
    const kernels::LoraWeightPart& part = weight_.parts[i];
    if (part.rank == 0) continue;
    views.push_back(flat.narrow(0, offset + part.first_column * weight_.k, part.rank * weight_.k)
                        .view({part.rank, weight_.k}));
    views.push_back(flat.narrow(0, b_at, part.rows * part.rank).view({part.rows, part.rank}));
    b_at += part.rows * part.rank;
  }
}

}  // namespace finetuned
