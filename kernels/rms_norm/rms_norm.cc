#include "kernels/rms_norm/rms_norm.h"

#include <cmath>

#include "kernels/base/parallel.h"
#include "kernels/base/simd.h"

namespace finetuned::kernels {
namespace {

FT_SIMD_CLONES void ForwardRows(const float* x, const float* delta, const float* w, float eps,
                                int64_t begin, int64_t end, int64_t d, float* h, float* y,
                                float* rstd) {
  for (int64_t row = begin; row < end; ++row) {
    const float* in = x + row * d;
    if (delta != nullptr) {
      const float* add = delta + row * d;
      float* sum = h + row * d;
#pragma omp simd
      for (int64_t i = 0; i < d; ++i) sum[i] = in[i] + add[i];
      in = sum;
    }
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < d; ++i) squares += in[i] * in[i];
    const float r = 1.0f / std::sqrt(squares / static_cast<float>(d) + eps);
    rstd[row] = r;
    float* out = y + row * d;
#pragma omp simd
    for (int64_t i = 0; i < d; ++i) out[i] = w[i] * (in[i] * r);
  }
}

FT_SIMD_CLONES void BackwardRows(const float* dy, const float* dh, const float* h, const float* w,
                                 const float* rstd, int64_t begin, int64_t end, int64_t d,
                                 float* dx) {
  for (int64_t row = begin; row < end; ++row) {
    const float *gy = dy + row * d, *in = h + row * d;
    const float r = rstd[row];
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < d; ++i) dot += gy[i] * w[i] * in[i];
    const float c = dot * r * r / static_cast<float>(d);
    float* out = dx + row * d;
    if (dh != nullptr) {
      const float* through = dh + row * d;
#pragma omp simd
      for (int64_t i = 0; i < d; ++i) out[i] = through[i] + r * (gy[i] * w[i] - in[i] * c);
    } else {
#pragma omp simd
      for (int64_t i = 0; i < d; ++i) out[i] = r * (gy[i] * w[i] - in[i] * c);
    }
  }
}

}  // namespace

void AddRmsNormForward(const float* x, const float* delta, const float* w, float eps, int64_t t,
                       int64_t d, float* h, float* y, float* rstd) {
  ParallelFor(t, 16, [=](int64_t begin, int64_t end) {
    ForwardRows(x, delta, w, eps, begin, end, d, h, y, rstd);
  });
}

void AddRmsNormBackward(const float* dy, const float* dh, const float* h, const float* w,
                        const float* rstd, int64_t t, int64_t d, float* dx) {
  ParallelFor(t, 16, [=](int64_t begin, int64_t end) {
    BackwardRows(dy, dh, h, w, rstd, begin, end, d, dx);
  });
}

}  // namespace finetuned::kernels
