#include "kernels/cross_entropy/cross_entropy.h"

#include <cmath>

#include "kernels/base/parallel.h"
#include "kernels/base/simd.h"

namespace finetuned::kernels {
namespace {

FT_SIMD_CLONES void Rows(float* logits, const int64_t* targets, int64_t begin, int64_t end,
                         int64_t v, bool gradient, float* loss) {
  for (int64_t row = begin; row < end; ++row) {
    float* z = logits + row * v;
    float largest = z[0];
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < v; ++i) largest = z[i] > largest ? z[i] : largest;
    const float target = z[targets[row]];
    // Sums of 1,024 values each, then a double: 150,000 terms in one float would lose digits.
    double total = 0;
    for (int64_t block = 0; block < v; block += 1024) {
      const int64_t stop = block + 1024 < v ? block + 1024 : v;
      float sum = 0;
      if (gradient) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = block; i < stop; ++i) {
          const float e = Exp(z[i] - largest);
          z[i] = e;
          sum += e;
        }
      } else {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = block; i < stop; ++i) sum += Exp(z[i] - largest);
      }
      total += static_cast<double>(sum);
    }
    loss[row] = static_cast<float>(std::log(total) + static_cast<double>(largest - target));
    if (gradient) {
      const float inverse = static_cast<float>(1 / total);
#pragma omp simd
      for (int64_t i = 0; i < v; ++i) z[i] *= inverse;
      z[targets[row]] -= 1.0f;
    }
  }
}

}  // namespace

void CrossEntropy(float* logits, const int64_t* targets, int64_t m, int64_t v, bool gradient,
                  float* loss) {
  ParallelFor(m, 1, [=](int64_t begin, int64_t end) {
    Rows(logits, targets, begin, end, v, gradient, loss);
  });
}

}  // namespace finetuned::kernels
