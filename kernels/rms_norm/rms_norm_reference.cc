#include <cmath>

#include "kernels/rms_norm/rms_norm.h"

namespace finetuned::kernels {

void AddRmsNormForwardReference(const float* x, const float* delta, const float* w, float eps,
                                int64_t t, int64_t d, float* h, float* y, float* rstd) {
  for (int64_t row = 0; row < t; ++row) {
    double squares = 0;
    for (int64_t i = row * d; i < (row + 1) * d; ++i) {
      const float sum = delta != nullptr ? x[i] + delta[i] : x[i];
      if (delta != nullptr) h[i] = sum;
      squares += double{sum} * sum;
    }
    const double r = 1 / std::sqrt(squares / static_cast<double>(d) + eps);
    rstd[row] = static_cast<float>(r);
    for (int64_t i = 0; i < d; ++i) {
      const float in = delta != nullptr ? h[row * d + i] : x[row * d + i];
      y[row * d + i] = static_cast<float>(w[i] * (in * r));
    }
  }
}

void AddRmsNormBackwardReference(const float* dy, const float* dh, const float* h, const float* w,
                                 const float* rstd, int64_t t, int64_t d, float* dx) {
  for (int64_t row = 0; row < t; ++row) {
    double mean = 0;
    for (int64_t i = 0; i < d; ++i) {
      mean += double{dy[row * d + i]} * w[i] * h[row * d + i] * rstd[row] / static_cast<double>(d);
    }
    for (int64_t i = 0; i < d; ++i) {
      const double g = double{dy[row * d + i]} * w[i],
                   normalised = double{h[row * d + i]} * rstd[row];
      const double through = dh != nullptr ? dh[row * d + i] : 0;
      dx[row * d + i] = static_cast<float>(through + rstd[row] * (g - normalised * mean));
    }
  }
}

}  // namespace finetuned::kernels
