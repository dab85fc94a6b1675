#include <cmath>

#include "kernels/swiglu/swiglu.h"

namespace finetuned::kernels {

void SwiGluForwardReference(const float* gate_up, int64_t t, int64_t f, float* act) {
  for (int64_t row = 0; row < t; ++row) {
    for (int64_t i = 0; i < f; ++i) {
      const double z = gate_up[row * 2 * f + i], u = gate_up[row * 2 * f + f + i];
      act[row * f + i] = static_cast<float>(z / (1 + std::exp(-z)) * u);
    }
  }
}

void SwiGluBackwardReference(const float* d_act, const float* gate_up, int64_t t, int64_t f,
                             float* d_gate_up) {
  for (int64_t row = 0; row < t; ++row) {
    for (int64_t i = 0; i < f; ++i) {
      const double z = gate_up[row * 2 * f + i], u = gate_up[row * 2 * f + f + i],
                   g = d_act[row * f + i];
      const double sigmoid = 1 / (1 + std::exp(-z));
      d_gate_up[row * 2 * f + i] = static_cast<float>(g * u * sigmoid * (1 + z * (1 - sigmoid)));
      d_gate_up[row * 2 * f + f + i] = static_cast<float>(g * z * sigmoid);
    }
  }
}

}  // namespace finetuned::kernels
