// CUDA kernels against plain double-precision code at odd sizes, with poisoned outputs; every
// launch is made twice and must give the same bits. Without a GPU all of it is skipped.
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "kernels/attention/rotary_cuda.h"
#include "kernels/base/gemm_cuda.h"
#include "kernels/cross_entropy/cross_entropy_cuda.h"
#include "kernels/embedding/embedding_cuda.h"
#include "kernels/lora_weight/lora_weight_cuda.h"
#include "kernels/nf4/nf4.h"
#include "kernels/nf4/nf4_cuda.h"
#include "kernels/rms_norm/rms_norm_cuda.h"
#include "kernels/swiglu/swiglu_cuda.h"
#include "tests/gpu.h"

namespace finetuned::kernels {
namespace {

using bf16 = __nv_bfloat16;

// Device memory, filled with a pattern that is NaN in bf16 and fp32.
template <typename T>
class Device {
 public:
  explicit Device(int64_t n) : n_(n) {
    EXPECT_EQ(
        cudaMalloc(reinterpret_cast<void**>(&data_), static_cast<size_t>(n_ + 16) * sizeof(T)),
        cudaSuccess);
    cudaMemset(data_, 0xff, static_cast<size_t>(n_ + 16) * sizeof(T));
  }
  explicit Device(const std::vector<T>& values) : Device(static_cast<int64_t>(values.size())) {
    Set(values);
  }
  ~Device() { cudaFree(data_); }
  Device(const Device&) = delete;
  T* get() const { return data_; }
  void Set(const std::vector<T>& values) {
    cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice);
  }
  std::vector<T> Host() const {
    std::vector<T> values(static_cast<size_t>(n_));
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, values.size() * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }

 private:
  T* data_ = nullptr;
  int64_t n_;
};

std::mt19937 engine(17);

// Normal values, rounded to bf16.
std::vector<bf16> Random(int64_t n, float deviation = 1) {
  std::normal_distribution<float> normal(0, deviation);
  std::vector<bf16> values(static_cast<size_t>(n));
  for (bf16& value : values) value = __float2bfloat16(normal(engine));
  return values;
}
std::vector<float> RandomFloats(int64_t n) {
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = normal(engine);
  return values;
}
double At(const std::vector<bf16>& values, int64_t i) {
  return __bfloat162float(values[static_cast<size_t>(i)]);
}

// ‖out − expected‖ ≤ tolerance · ‖expected‖ over rows of `columns` in out with `stride`; a NaN
// never passes, and what lies between the rows is still poisoned.
void ExpectClose(const std::vector<bf16>& out, const std::vector<double>& expected, int64_t columns,
                 int64_t stride, double tolerance = 4e-3) {
  double difference = 0, norm = 0;
  const int64_t rows = static_cast<int64_t>(expected.size()) / columns;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < stride && r * stride + c < static_cast<int64_t>(out.size()); ++c) {
      const double value = At(out, r * stride + c);
      if (c >= columns) {
        ASSERT_TRUE(std::isnan(value)) << "written beyond row " << r << " at column " << c;
        continue;
      }
      const double right = expected[static_cast<size_t>(r * columns + c)];
      difference += (value - right) * (value - right);
      norm += right * right;
    }
  }
  ASSERT_FALSE(std::isnan(difference)) << "not every element was written";
  EXPECT_LE(std::sqrt(difference), tolerance * std::sqrt(norm) + 1e-30);
}

template <typename T>
void ExpectSameBits(const std::vector<T>& a, const std::vector<T>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(T)), 0) << "two launches differ";
}

class CudaKernels : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Rows, CudaKernels, testing::Values(1, 59, 97, 1025));

TEST_P(CudaKernels, RmsNorm) {
  const int64_t t = GetParam();
  for (const int64_t d : {int64_t{8}, int64_t{72}, int64_t{2056}, int64_t{4096}, int64_t{16384}}) {
    if (t > 100 && d > 5000) continue;
    const int64_t stride = d + 64;
    const auto x = Random(t * d), w = Random(d), dy = Random(t * d), residual = Random(t * stride);
    const float scale = 0.37f;
    std::vector<double> y, dx, dx_plain;
    std::vector<double> rstd;
    for (int64_t r = 0; r < t; ++r) {
      double squares = 0, dot = 0;
      for (int64_t c = 0; c < d; ++c) squares += At(x, r * d + c) * At(x, r * d + c);
      const double s = 1 / std::sqrt(squares / static_cast<double>(d) + 1e-5);
      rstd.push_back(s);
      for (int64_t c = 0; c < d; ++c) dot += At(dy, r * d + c) * At(w, c) * At(x, r * d + c) * s;
      for (int64_t c = 0; c < d; ++c) {
        const double g = At(dy, r * d + c) * At(w, c), normalised = At(x, r * d + c) * s;
        y.push_back(At(w, c) * normalised);
        const double gradient = s * (g - normalised * dot / static_cast<double>(d));
        dx_plain.push_back(scale * gradient);
        dx.push_back(gradient + At(residual, r * stride + c));
      }
    }
    const Device<bf16> on_x(x), on_w(w), on_dy(dy), on_residual(residual);
    const Device<float> on_scale(std::vector<float>{scale});
    std::vector<bf16> first, first_dx;
    for (int run = 0; run < 2; ++run) {
      const Device<bf16> on_y(t * stride), on_dx(t * stride), on_plain(t * stride);
      const Device<float> on_rstd(t);
      RmsNormForwardCuda(on_x.get(), on_w.get(), 1e-5f, t, d, stride, on_y.get(), on_rstd.get(),
                         nullptr);
      RmsNormBackwardCuda(on_dy.get(), on_x.get(), on_w.get(), on_rstd.get(), on_residual.get(),
                          stride, nullptr, t, d, stride, on_dx.get(), nullptr);
      RmsNormBackwardCuda(on_dy.get(), on_x.get(), on_w.get(), on_rstd.get(), nullptr, 0,
                          on_scale.get(), t, d, stride, on_plain.get(), nullptr);
      ExpectClose(on_y.Host(), y, d, stride);
      ExpectClose(on_dx.Host(), dx, d, stride);
      ExpectClose(on_plain.Host(), dx_plain, d, stride);
      const auto found = on_rstd.Host();
      for (int64_t r = 0; r < t; ++r)
        EXPECT_NEAR(found[static_cast<size_t>(r)] / rstd[static_cast<size_t>(r)], 1, 1e-5);
      if (run == 0) {
        first = on_y.Host();
        first_dx = on_dx.Host();
      } else {
        ExpectSameBits(first, on_y.Host());
        ExpectSameBits(first_dx, on_dx.Host());
      }
    }
  }
}

TEST_P(CudaKernels, SwiGlu) {
  const int64_t t = GetParam();
  for (const int64_t f : {int64_t{8}, int64_t{104}, int64_t{1376}}) {
    const int64_t stride = 2 * f + 64, act_stride = f + 64;
    const auto gate_up = Random(t * stride), d_act = Random(t * act_stride);
    std::vector<double> act, gradient;
    for (int64_t r = 0; r < t; ++r) {
      std::vector<double> d_up;
      for (int64_t c = 0; c < f; ++c) {
        const double g = At(gate_up, r * stride + c), u = At(gate_up, r * stride + f + c),
                     d = At(d_act, r * act_stride + c);
        const double s = 1 / (1 + std::exp(-g));
        act.push_back(g * s * u);
        gradient.push_back(d * u * (s + g * s * (1 - s)));
        d_up.push_back(d * g * s);
      }
      gradient.insert(gradient.end(), d_up.begin(), d_up.end());
    }
    std::vector<bf16> kept;
    for (const bool recompute : {false, true}) {
      Device<bf16> on_gate_up(gate_up), on_d_act(d_act);
      const Device<bf16> on_act(t * act_stride);
      SwiGluForwardCuda(on_gate_up.get(), stride, t, f, on_act.get(), act_stride, nullptr);
      kept = on_act.Host();
      ExpectClose(kept, act, f, act_stride);
      SwiGluBackwardCuda(on_gate_up.get(), stride, t, f, on_d_act.get(), act_stride, recompute,
                         nullptr);
      auto found = on_gate_up.Host();
      std::vector<bf16> tight;
      for (int64_t r = 0; r < t; ++r)
        tight.insert(tight.end(), found.begin() + r * stride, found.begin() + r * stride + 2 * f);
      ExpectClose(tight, gradient, 2 * f, 2 * f);
      const auto again = on_d_act.Host();
      for (int64_t r = 0; r < t; ++r) {  // act's own bits, or d_act untouched
        const auto& right = recompute ? kept : d_act;
        ASSERT_EQ(std::memcmp(&again[static_cast<size_t>(r * act_stride)],
                              &right[static_cast<size_t>(r * act_stride)],
                              static_cast<size_t>(f) * sizeof(bf16)),
                  0);
      }
    }
  }
}

TEST_P(CudaKernels, Rotary) {
  const int64_t t = GetParam();
  for (const int64_t e : {int64_t{16}, int64_t{64}, int64_t{96}, int64_t{128}}) {
    const int64_t heads = 3, stride = (heads + 2) * e, half = e / 2;
    const auto x = Random(t * stride);
    std::vector<float> cosines, sines;
    for (int64_t i = 0; i < t * half; ++i) {
      cosines.push_back(std::cos(0.37f * static_cast<float>(i)));
      sines.push_back(std::sin(0.37f * static_cast<float>(i)));
    }
    const Device<float> on_cos(cosines), on_sin(sines);
    for (const bool inverse : {false, true}) {
      std::vector<double> right;
      for (int64_t i = 0; i < t * stride; ++i) right.push_back(At(x, i));
      for (int64_t r = 0; r < t; ++r) {
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t j = 0; j < half; ++j) {
            const auto a = static_cast<size_t>(r * stride + h * e + j),
                       b = a + static_cast<size_t>(half);
            const double c = cosines[static_cast<size_t>(r * half + j)],
                         s = sines[static_cast<size_t>(r * half + j)] * (inverse ? -1 : 1);
            const double p = right[a], q = right[b];
            right[a] = p * c - q * s;
            right[b] = q * c + p * s;
          }
        }
      }
      const Device<bf16> on_x(x);
      RotateInPlaceCuda(on_x.get(), stride, t, heads, e, on_cos.get(), on_sin.get(), inverse,
                        nullptr);
      ExpectClose(on_x.Host(), right, stride, stride);
    }
  }
}

TEST_P(CudaKernels, CrossEntropy) {
  const int64_t rows = std::min<int64_t>(GetParam(), 200);
  for (const int64_t v : {int64_t{3}, int64_t{1003}, int64_t{32000}}) {
    const int64_t stride = (v + 63) / 64 * 64;
    const auto logits = Random(rows * stride, 4);
    std::vector<int64_t> targets;
    for (int64_t r = 0; r < rows; ++r)
      targets.push_back(r % 7 == 3 ? -100
                                   : static_cast<int64_t>(engine() % static_cast<uint32_t>(v)));
    std::vector<double> losses, gradient;
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (int64_t c = 0; c < v; ++c) sum += std::exp(At(logits, r * stride + c));
      const int64_t target = targets[static_cast<size_t>(r)];
      losses.push_back(target < 0 ? 0 : std::log(sum) - At(logits, r * stride + target));
      for (int64_t c = 0; c < v; ++c) {
        gradient.push_back(
            target < 0 ? 0 : std::exp(At(logits, r * stride + c)) / sum - (c == target ? 1 : 0));
      }
    }
    const Device<int64_t> on_targets(targets);
    std::vector<bf16> first;
    for (const bool with_gradient : {false, true, true}) {
      const Device<bf16> on_logits(logits);
      const Device<float> on_losses(rows);
      CrossEntropyCuda(on_logits.get(), stride, on_targets.get(), rows, v, with_gradient,
                       on_losses.get(), nullptr);
      const auto found = on_losses.Host();
      for (int64_t r = 0; r < rows; ++r) {
        EXPECT_NEAR(found[static_cast<size_t>(r)], losses[static_cast<size_t>(r)],
                    1e-4 * (1 + losses[static_cast<size_t>(r)]));
      }
      const auto after = on_logits.Host();
      if (!with_gradient) {
        ExpectSameBits(after, logits);
        continue;
      }
      std::vector<bf16> tight;
      for (int64_t r = 0; r < rows; ++r)
        tight.insert(tight.end(), after.begin() + r * stride, after.begin() + r * stride + v);
      ExpectClose(tight, gradient, v, v);
      if (!first.empty()) ExpectSameBits(first, after);
      first = after;
    }
  }
}

TEST_F(CudaKernels, CrossEntropyOfImpossibleInput) {
  auto logits = Random(3 * 64);
  logits[64] = __float2bfloat16(std::numeric_limits<float>::quiet_NaN());
  const Device<bf16> on_logits(logits);
  const Device<int64_t> on_targets(
      std::vector<int64_t>{61, 5, -1});  // beyond the vocabulary, NaN in the row, negative
  const Device<float> on_losses(3);
  CrossEntropyCuda(on_logits.get(), 64, on_targets.get(), 3, 61, true, on_losses.get(), nullptr);
  for (float loss : on_losses.Host()) EXPECT_TRUE(std::isnan(loss));
}

TEST_P(CudaKernels, Embedding) {
  const int64_t t = GetParam(), d = 72, v = 11, stride = 128;
  const auto table = Random(v * d);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < t; ++i) ids.push_back(static_cast<int64_t>(engine() % v));
  if (t > 1) ids[1] = v;  // outside the table
  const Device<bf16> on_table(table), on_out(t * stride);
  const Device<int64_t> on_ids(ids);
  EmbeddingCuda(on_ids.get(), on_table.get(), v, t, d, on_out.get(), stride, nullptr);
  const auto out = on_out.Host();
  for (int64_t i = 0; i < t; ++i) {
    for (int64_t c = 0; c < d; ++c) {
      const double value = At(out, i * stride + c);
      if (ids[static_cast<size_t>(i)] == v) {
        ASSERT_TRUE(std::isnan(value));
      } else {
        ASSERT_EQ(value, At(table, ids[static_cast<size_t>(i)] * d + c));
      }
    }
  }
}

// The extended weight: W equal to nf4_cuda's own decoding bit for bit, sB block-diagonal, A below.
TEST_P(CudaKernels, LoraWeight) {
  const int64_t n0 = GetParam(), n1 = 24, k = 4032 + 8 * (GetParam() % 8), rank0 = 5, rank1 = 16,
                rt = 24, stride = (k + rt + 63) / 64 * 64;
  for (const int mode :
       {0, 1, 2, 3}) {  // dense, NF4 with fp32 scales, NF4 with 8-bit scales, FP4 with 8-bit scales
    const Code4 code = mode == 3 ? Code4::kFp4 : Code4::kNf4;
    const auto w0 = Random(n0 * k), w1 = Random(n1 * k);
    const auto a0 = RandomFloats(rank0 * k), b0 = RandomFloats(n0 * rank0),
               a1 = RandomFloats(rank1 * k), b1 = RandomFloats(n1 * rank1);
    const Device<bf16> on_w0(w0), on_w1(w1);
    const Device<float> on_a0(a0), on_b0(b0), on_a1(a1), on_b1(b1);
    const int64_t blocks0 = (n0 * k + 63) / 64, blocks1 = (n1 * k + 63) / 64;
    const Device<uint8_t> packed0(n0 * k / 2), packed1(n1 * k / 2), codes0(blocks0),
        codes1(blocks1);
    const Device<float> scales0(blocks0), scales1(blocks1), nested0(blocks0 / 256 + 1),
        nested1(blocks1 / 256 + 1);
    const Device<bf16> decoded((n0 + n1) * k);
    LoraWeight weight;
    weight.part_count = 2;
    weight.n = n0 + n1;
    weight.k = k;
    weight.rt = rt;
    weight.stride = stride;
    weight.code = code;
    weight.parts[0] = {.rows = n0,
                       .first_row = 0,
                       .a = on_a0.get(),
                       .b = on_b0.get(),
                       .scaling = 2,
                       .rank = rank0,
                       .first_column = 0};
    weight.parts[1] = {.rows = n1,
                       .first_row = n0,
                       .a = on_a1.get(),
                       .b = on_b1.get(),
                       .scaling = 0.5f,
                       .rank = rank1,
                       .first_column = 8};
    if (mode == 0) {
      weight.parts[0].dense = on_w0.get();
      weight.parts[1].dense = on_w1.get();
      cudaMemcpy(decoded.get(), on_w0.get(), static_cast<size_t>(n0 * k) * 2,
                 cudaMemcpyDeviceToDevice);
      cudaMemcpy(decoded.get() + n0 * k, on_w1.get(), static_cast<size_t>(n1 * k) * 2,
                 cudaMemcpyDeviceToDevice);
    } else {
      const auto quantize = [&](LoraWeightPart& part, const bf16* w, int64_t n,
                                const Device<uint8_t>& packed, const Device<float>& scales,
                                const Device<uint8_t>& codes, const Device<float>& nested,
                                bf16* out) {
        Quantize4BitCuda(w, FloatType::kBFloat16, n * k, 64, code, packed.get(), scales.get(),
                         nullptr);
        part.packed = packed.get();
        part.absmax = scales.get();
        if (mode >= 2) {
          QuantizeScalesCuda(scales.get(), (n * k + 63) / 64, codes.get(), nested.get(), nullptr);
          part.absmax = codes.get();
          part.nested_absmax = nested.get();
          part.offset = 0.125f;
        }
        Dequantize4BitCuda(part.packed, part.absmax, part.nested_absmax, part.offset, n, k, k, 64,
                           code, out, FloatType::kBFloat16, nullptr);
      };
      quantize(weight.parts[0], on_w0.get(), n0, packed0, scales0, codes0, nested0, decoded.get());
      quantize(weight.parts[1], on_w1.get(), n1, packed1, scales1, codes1, nested1,
               decoded.get() + n0 * k);
    }
    const auto right = decoded.Host();
    for (const bool with_adapters : {true, false}) {
      const Device<bf16> on_out((weight.n + rt) * stride);
      FillLoraWeightCuda(weight, true, with_adapters, on_out.get(), nullptr);
      const auto out = on_out.Host();
      for (int64_t r = 0; r < weight.n + rt; ++r) {
        for (int64_t c = 0; c < stride; ++c) {
          const double value = At(out, r * stride + c);
          if (r < weight.n && c < k) {
            ASSERT_EQ(value, At(right, r * k + c))
                << "W, mode " << mode << ", row " << r << ", column " << c;
          } else if (r < weight.n && c < k + rt) {
            const int64_t j = c - k;
            double expected = 0;
            if (with_adapters && r < n0 && j < rank0)
              expected =
                  __bfloat162float(__float2bfloat16(2 * b0[static_cast<size_t>(r * rank0 + j)]));
            if (with_adapters && r >= n0 && j >= 8 && j < 8 + rank1) {
              expected = __bfloat162float(
                  __float2bfloat16(0.5f * b1[static_cast<size_t>((r - n0) * rank1 + j - 8)]));
            }
            ASSERT_EQ(value, expected) << "sB, row " << r << ", column " << j;
          } else if (r >= weight.n && c < k) {
            const int64_t j = r - weight.n;
            double expected = 0;
            if (j < rank0)
              expected = __bfloat162float(__float2bfloat16(a0[static_cast<size_t>(j * k + c)]));
            if (j >= 8)
              expected =
                  __bfloat162float(__float2bfloat16(a1[static_cast<size_t>((j - 8) * k + c)]));
            ASSERT_EQ(value, expected) << "A, row " << j << ", column " << c;
          } else {
            ASSERT_TRUE(std::isnan(value)) << "written where nothing belongs";
          }
        }
      }
    }
  }
}

TEST_P(CudaKernels, Products) {
  const int64_t m = std::min<int64_t>(GetParam(), 300), n = 72, k = 200;
  const Device<char> workspace(GemmCuda::kWorkspaceBytes);
  GemmCuda gemm;
  gemm.set_workspace(workspace.get());
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      for (const bool fp32 : {false, true}) {
        const int64_t a_rows = transpose_a ? k : m, a_columns = transpose_a ? m : k,
                      a_stride = (a_columns + 71) / 8 * 8;
        const int64_t b_rows = transpose_b ? n : k, b_columns = transpose_b ? k : n,
                      b_stride = (b_columns + 71) / 8 * 8, d_stride = n + 64;
        const auto a = Random(a_rows * a_stride), b = Random(b_rows * b_stride),
                   c = Random(m * d_stride);
        std::vector<double> right;
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (int64_t l = 0; l < k; ++l) {
              sum += At(a, transpose_a ? l * a_stride + i : i * a_stride + l) *
                     At(b, transpose_b ? j * b_stride + l : l * b_stride + j);
            }
            right.push_back(0.5 * sum + (fp32 ? 0 : At(c, i * d_stride + j)));
          }
        }
        const Device<bf16> on_a(a), on_b(b), on_c(c);
        const GemmMatrix left = {on_a.get(), a_rows, a_columns, a_stride},
                         other = {on_b.get(), b_rows, b_columns, b_stride};
        const GemmOptions options = {
            .transpose_a = transpose_a, .transpose_b = transpose_b, .alpha = 0.5f};
        if (fp32) {
          const Device<float> on_d(m * d_stride);
          gemm.Multiply(left, other, {on_d.get(), m, n, d_stride, 0, true}, nullptr, options,
                        nullptr);
          const auto d = on_d.Host();
          for (int64_t i = 0; i < m * n; ++i) {
            ASSERT_NEAR(d[static_cast<size_t>(i / n * d_stride + i % n)],
                        right[static_cast<size_t>(i)], 1e-3);
          }
        } else {
          const Device<bf16> on_d(m * d_stride);
          gemm.Multiply(left, other, {on_d.get(), m, n, d_stride}, on_c.get(), options, nullptr);
          ExpectClose(on_d.Host(), right, n, d_stride);
        }
      }
    }
  }
  EXPECT_THROW(gemm.Multiply({workspace.get(), 8, 8, 8}, {workspace.get(), 16, 8, 8},
                             {workspace.get(), 8, 8, 8}, nullptr, {}, nullptr),
               std::runtime_error);
}

// Attention of one document and head in double precision: out and the gradients of q, k, v.
struct OneHead {
  std::vector<double> out, dq, dk, dv;
  OneHead(int64_t n, int64_t e,
          const std::function<double(int, int64_t, int64_t)>&
              at) {  // at(tensor 0..3, position, column)
    out.assign(static_cast<size_t>(n * e), 0);
    dq = dk = dv = out;
    const double scale = 1 / std::sqrt(static_cast<double>(e));
    for (int64_t i = 0; i < n; ++i) {
      std::vector<double> p(static_cast<size_t>(i + 1)), dp(static_cast<size_t>(i + 1));
      double sum = 0, dot = 0;
      for (int64_t j = 0; j <= i; ++j) {
        double s = 0;
        for (int64_t c = 0; c < e; ++c) s += at(0, i, c) * at(1, j, c);
        sum += p[static_cast<size_t>(j)] = std::exp(s * scale);
      }
      for (int64_t j = 0; j <= i; ++j) {
        double& weight = p[static_cast<size_t>(j)];
        weight /= sum;
        for (int64_t c = 0; c < e; ++c) {
          out[static_cast<size_t>(i * e + c)] += weight * at(2, j, c);
          dp[static_cast<size_t>(j)] += at(3, i, c) * at(2, j, c);
          dv[static_cast<size_t>(j * e + c)] += weight * at(3, i, c);
        }
        dot += weight * dp[static_cast<size_t>(j)];
      }
      for (int64_t j = 0; j <= i; ++j) {
        const double ds = p[static_cast<size_t>(j)] * (dp[static_cast<size_t>(j)] - dot) * scale;
        for (int64_t c = 0; c < e; ++c) {
          dq[static_cast<size_t>(i * e + c)] += ds * at(1, j, c);
          dk[static_cast<size_t>(j * e + c)] += ds * at(0, i, c);
        }
      }
    }
  }
};

TEST_F(CudaKernels, Attention) {
  REQUIRE_CUDNN_ATTENTION();
  struct Case {
    int64_t heads, kv_heads, e;
    std::vector<int64_t> lengths;
  };
  const Case cases[] = {{4, 4, 128, {256, 256, 256}},     {6, 2, 64, {128, 128}},
                        {2, 1, 128, {1, 59, 97, 260, 2}}, {9, 3, 64, {97}},
                        {2, 2, 96, {130, 130}},           {4, 2, 64, {300, 1, 1, 200}}};
  for (const Case& c : cases) {
    std::vector<int64_t> cu = {0};
    for (int64_t length : c.lengths) cu.push_back(cu.back() + length);
    const int64_t t = cu.back(), h = c.heads, kv = c.kv_heads, e = c.e;
    const int64_t row = (h + 2 * kv) * e, out_row = h * e + 64, d_row = row + 64;
    const auto qkv = Random(t * row), d_out = Random(t * h * e);
    std::vector<double> out(static_cast<size_t>(t * h * e)), d_qkv(static_cast<size_t>(t * row));
    for (size_t document = 0; document + 1 < cu.size(); ++document) {
      const int64_t begin = cu[document], n = cu[document + 1] - begin;
      for (int64_t head = 0; head < h; ++head) {
        const int64_t group = head / (h / kv);
        const int64_t columns[3] = {head * e, (h + group) * e, (h + kv + group) * e};
        const OneHead right(n, e, [&](int tensor, int64_t i, int64_t column) {
          return tensor == 3 ? At(d_out, (begin + i) * h * e + head * e + column)
                             : At(qkv, (begin + i) * row + columns[tensor] + column);
        });
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t column = 0; column < e; ++column) {
            const auto from = static_cast<size_t>(i * e + column);
            out[static_cast<size_t>((begin + i) * h * e + head * e + column)] = right.out[from];
            d_qkv[static_cast<size_t>((begin + i) * row + columns[0] + column)] += right.dq[from];
            d_qkv[static_cast<size_t>((begin + i) * row + columns[1] + column)] += right.dk[from];
            d_qkv[static_cast<size_t>((begin + i) * row + columns[2] + column)] += right.dv[from];
          }
        }
      }
    }
    CudnnAttention attention({h, kv, e, row, out_row, h * e, d_row});
    const Device<bf16> on_qkv(qkv), on_d_out(d_out);
    std::vector<bf16> first;
    // Without groups, in groups of documents, and of heads.
    for (const int64_t limit : {int64_t{1} << 40, int64_t{1} << 40, int64_t{4} << 20, int64_t{1}}) {
      attention.SetDocuments(cu, limit);
      const Device<int32_t> offsets(attention.offsets());
      const Device<char> workspace(attention.workspace_bytes() + 256);
      const Device<bf16> on_out(t * out_row), on_d_qkv(t * d_row);
      const Device<float> stats(h * t);
      attention.Forward(on_qkv.get(), offsets.get(), on_out.get(), stats.get(), workspace.get(),
                        nullptr);
      attention.Backward(on_d_out.get(), on_qkv.get(), offsets.get(), on_out.get(), stats.get(),
                         on_d_qkv.get(), workspace.get(), nullptr);
      ExpectClose(on_out.Host(), out, h * e, out_row, 6e-3);
      ExpectClose(on_d_qkv.Host(), d_qkv, row, d_row, 1e-2);
      if (!first.empty()) ExpectSameBits(first, on_d_qkv.Host());
      first = on_d_qkv.Host();
    }
  }
}

}  // namespace
}  // namespace finetuned::kernels
