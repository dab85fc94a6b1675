// The gated activation of Llama's MLP (Shazeer, "GLU variants", 2020), fp32 on the CPU.
//
//   gate_up [t, 2f] = gate | up,   act [t, f] = silu(gate) · up,   silu(z) = z / (1 + e^−z)
#pragma once

#include <cstdint>

namespace finetuned::kernels {

void SwiGluForward(const float* gate_up, int64_t t, int64_t f, float* act);
// d_gate_up [t, 2f] from d_act [t, f]; may be gate_up itself.
void SwiGluBackward(const float* d_act, const float* gate_up, int64_t t, int64_t f,
                    float* d_gate_up);

// The same in plain loops in double precision, for tests.
void SwiGluForwardReference(const float* gate_up, int64_t t, int64_t f, float* act);
void SwiGluBackwardReference(const float* d_act, const float* gate_up, int64_t t, int64_t f,
                             float* d_gate_up);

}  // namespace finetuned::kernels
