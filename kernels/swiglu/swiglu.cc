#include "kernels/swiglu/swiglu.h"

#include "kernels/base/parallel.h"
#include "kernels/base/simd.h"

namespace finetuned::kernels {
namespace {

FT_SIMD_CLONES void ForwardRows(const float* gate_up, int64_t begin, int64_t end, int64_t f,
                                float* act) {
  for (int64_t row = begin; row < end; ++row) {
    const float *gate = gate_up + row * 2 * f, *up = gate + f;
    float* out = act + row * f;
#pragma omp simd
    for (int64_t i = 0; i < f; ++i) out[i] = gate[i] / (1.0f + Exp(-gate[i])) * up[i];
  }
}

FT_SIMD_CLONES void BackwardRows(const float* d_act, const float* gate_up, int64_t begin,
                                 int64_t end, int64_t f, float* d_gate_up) {
  for (int64_t row = begin; row < end; ++row) {
    const float *gate = gate_up + row * 2 * f, *up = gate + f, *dy = d_act + row * f;
    float *d_gate = d_gate_up + row * 2 * f, *d_up = d_gate + f;
#pragma omp simd
    for (int64_t i = 0; i < f; ++i) {
      const float z = gate[i], u = up[i], g = dy[i];
      const float sigmoid = 1.0f / (1.0f + Exp(-z));
      d_up[i] = g * z * sigmoid;
      d_gate[i] = g * u * sigmoid * (1.0f + z * (1.0f - sigmoid));
    }
  }
}

}  // namespace

void SwiGluForward(const float* gate_up, int64_t t, int64_t f, float* act) {
  ParallelFor(t, 8, [=](int64_t begin, int64_t end) { ForwardRows(gate_up, begin, end, f, act); });
}

void SwiGluBackward(const float* d_act, const float* gate_up, int64_t t, int64_t f,
                    float* d_gate_up) {
  ParallelFor(t, 8, [=](int64_t begin, int64_t end) {
    BackwardRows(d_act, gate_up, begin, end, f, d_gate_up);
  });
}

}  // namespace finetuned::kernels
