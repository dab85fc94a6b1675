#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/base/gemm.h"
#include "kernels/base/parallel.h"
#include "kernels/base/simd.h"

namespace finetuned::kernels {
namespace {

// Queries of a block share one product with the keys before the block's end: small enough that
// little of the masked triangle is computed, large enough for the matrix product to run at full
// speed.
constexpr int64_t kQueryBlock = 128;

// direction +1 rotates, −1 rotates back.
FT_SIMD_CLONES void Rotate(float* x, int64_t stride, int64_t rows, int64_t half, const float* cos,
                           const float* sin, float direction) {
  for (int64_t row = 0; row < rows; ++row) {
    float *first = x + row * stride, *second = first + half;
    const float *c = cos + row * half, *s = sin + row * half;
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
      const float x1 = first[i], x2 = second[i], angle = direction * s[i];
      first[i] = x1 * c[i] - x2 * angle;
      second[i] = x2 * c[i] + x1 * angle;
    }
  }
}

// scores [m, n]; row i may see the first `visible + i` keys. Becomes probabilities; writes each
// row's log-sum-exp.
FT_SIMD_CLONES void CausalSoftmax(float* scores, int64_t m, int64_t n, int64_t visible, float* lse,
                                  int64_t lse_stride) {
  for (int64_t row = 0; row < m; ++row) {
    float* z = scores + row * n;
    const int64_t count = visible + row;
    float largest = z[0];
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < count; ++i) largest = z[i] > largest ? z[i] : largest;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) {
      const float e = Exp(z[i] - largest);
      z[i] = e;
      sum += e;
    }
    const float inverse = 1.0f / sum;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) z[i] *= inverse;
    for (int64_t i = count; i < n; ++i) z[i] = 0;
    lse[row * lse_stride] = largest + std::log(sum);
  }
}

// scores → probabilities in place, from the forward pass's log-sum-exp.
FT_SIMD_CLONES void CausalProbabilities(float* scores, int64_t m, int64_t n, int64_t visible,
                                        const float* lse, int64_t lse_stride) {
  for (int64_t row = 0; row < m; ++row) {
    float* z = scores + row * n;
    const int64_t count = visible + row;
    const float shift = lse[row * lse_stride];
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) z[i] = Exp(z[i] - shift);
    for (int64_t i = count; i < n; ++i) z[i] = 0;
  }
}

// dS = P ∘ (dP − rowsum(dO ∘ O)) · scale, in place of dP.
FT_SIMD_CLONES void ScoreGradient(float* dp, const float* p, int64_t m, int64_t n,
                                  const float* d_out, const float* out, int64_t out_stride,
                                  int64_t e, float scale) {
  for (int64_t row = 0; row < m; ++row) {
    const float *g = d_out + row * out_stride, *o = out + row * out_stride;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < e; ++i) dot += g[i] * o[i];
    float* d = dp + row * n;
    const float* weight = p + row * n;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) d[i] = weight[i] * (d[i] - dot) * scale;
  }
}

// Longest documents first, so that the last tasks are short and threads end together.
std::vector<int64_t> ByLength(const AttentionShape& shape) {
  std::vector<int64_t> order(static_cast<size_t>(shape.documents));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return shape.cu_seqlens[a + 1] - shape.cu_seqlens[a] >
           shape.cu_seqlens[b + 1] - shape.cu_seqlens[b];
  });
  return order;
}

struct Task {
  int64_t begin, length, kv_head;
};

template <typename Body>
void ForEachTask(const AttentionShape& shape, const Body& body) {
  const std::vector<int64_t> order = ByLength(shape);
  ParallelTasks(shape.documents * shape.kv_heads, [&](int64_t i) {
    const int64_t document = order[static_cast<size_t>(i / shape.kv_heads)];
    const int64_t begin = shape.cu_seqlens[document];
    const int64_t length = shape.cu_seqlens[document + 1] - begin;
    if (length > 0) body(Task{begin, length, i % shape.kv_heads});
  });
}

// Scratch of one thread, kept between calls.
float* Scratch(int which, int64_t floats) {
  static thread_local std::vector<float> buffers[2];
  auto& buffer = buffers[which];
  if (buffer.size() < static_cast<size_t>(floats)) buffer.resize(static_cast<size_t>(floats));
  return buffer.data();
}

}  // namespace

void RotaryAttentionForward(const AttentionShape& shape, float* qkv, const float* cos,
                            const float* sin, float* out, float* lse) {
  const int64_t e = shape.head_dim, half = e / 2, ld = shape.row(), lo = shape.heads * e;
  const int64_t group = shape.heads / shape.kv_heads;
  ForEachTask(shape, [&](const Task& task) {
    const float *c = cos + task.begin * half, *s = sin + task.begin * half;
    float* rows = qkv + task.begin * ld;
    float* k = rows + (shape.heads + task.kv_head) * e;
    const float* v = k + shape.kv_heads * e;
    Rotate(k, ld, task.length, half, c, s, 1);
    for (int64_t head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head) {
      float* q = rows + head * e;
      Rotate(q, ld, task.length, half, c, s, 1);
      for (int64_t i = 0; i < task.length; i += kQueryBlock) {
        const int64_t m = std::min(kQueryBlock, task.length - i), n = i + m;
        float* scores = Scratch(0, m * n);
        Gemm(false, true, m, n, e, shape.scale, q + i * ld, ld, k, ld, 0, scores, n);
        CausalSoftmax(scores, m, n, i + 1, lse + (task.begin + i) * shape.heads + head,
                      shape.heads);
        Gemm(false, false, m, e, n, 1, scores, n, v, ld, 0, out + (task.begin + i) * lo + head * e,
             lo);
      }
    }
  });
}

void RotaryAttentionBackward(const AttentionShape& shape, const float* d_out, const float* qkv,
                             const float* cos, const float* sin, const float* out, const float* lse,
                             float* d_qkv) {
  const int64_t e = shape.head_dim, half = e / 2, ld = shape.row(), lo = shape.heads * e;
  const int64_t group = shape.heads / shape.kv_heads;
  ForEachTask(shape, [&](const Task& task) {
    const float *c = cos + task.begin * half, *s = sin + task.begin * half;
    const float* rows = qkv + task.begin * ld;
    float* d_rows = d_qkv + task.begin * ld;
    const int64_t k_at = (shape.heads + task.kv_head) * e, v_at = k_at + shape.kv_heads * e;
    for (int64_t i = 0; i < task.length; ++i) {
      std::fill_n(d_rows + i * ld + k_at, e, 0.0f);
      std::fill_n(d_rows + i * ld + v_at, e, 0.0f);
    }
    for (int64_t head = task.kv_head * group; head < (task.kv_head + 1) * group; ++head) {
      for (int64_t i = 0; i < task.length; i += kQueryBlock) {
        const int64_t m = std::min(kQueryBlock, task.length - i), n = i + m;
        const float* q = rows + i * ld + head * e;
        const float *o = out + (task.begin + i) * lo + head * e,
                    *g = d_out + (task.begin + i) * lo + head * e;
        float *p = Scratch(0, m * n), *dp = Scratch(1, m * n);
        Gemm(false, true, m, n, e, shape.scale, q, ld, rows + k_at, ld, 0, p, n);
        CausalProbabilities(p, m, n, i + 1, lse + (task.begin + i) * shape.heads + head,
                            shape.heads);
        Gemm(true, false, n, e, m, 1, p, n, g, lo, 1, d_rows + v_at, ld);
        Gemm(false, true, m, n, e, 1, g, lo, rows + v_at, ld, 0, dp, n);
        ScoreGradient(dp, p, m, n, g, o, lo, e, shape.scale);
        Gemm(false, false, m, e, n, 1, dp, n, rows + k_at, ld, 0, d_rows + i * ld + head * e, ld);
        Gemm(true, false, n, e, m, 1, dp, n, q, ld, 1, d_rows + k_at, ld);
      }
      Rotate(d_rows + head * e, ld, task.length, half, c, s, -1);
    }
    Rotate(d_rows + k_at, ld, task.length, half, c, s, -1);
  });
}

}  // namespace finetuned::kernels
