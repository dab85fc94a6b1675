#include "worker/nn/swiglu.h"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/swiglu/swiglu.h"

namespace finetuned {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct SwiGluFunction : torch::autograd::Function<SwiGluFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up_in) {
    const at::Tensor gate_up = gate_up_in.contiguous();
    const int64_t t = gate_up.size(0), f = gate_up.size(1) / 2;
    at::Tensor act = at::empty({t, f}, gate_up.options());
    kernels::SwiGluForward(gate_up.const_data_ptr<float>(), t, f, act.mutable_data_ptr<float>());
    ctx->save_for_backward({gate_up});
    return act;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor gate_up = ctx->get_saved_variables()[0], d_act = grads[0].contiguous();
    at::Tensor d_gate_up = at::empty_like(gate_up);
    kernels::SwiGluBackward(d_act.const_data_ptr<float>(), gate_up.const_data_ptr<float>(),
                            gate_up.size(0), gate_up.size(1) / 2,
                            d_gate_up.mutable_data_ptr<float>());
    return {d_gate_up};
  }
};

}  // namespace

at::Tensor SwiGlu(const at::Tensor& gate_up) {
  if (gate_up.is_cpu() && gate_up.scalar_type() == at::kFloat)
    return SwiGluFunction::apply(gate_up);
  const auto halves = gate_up.chunk(2, -1);
  return at::silu(halves[0]) * halves[1];
}

}  // namespace finetuned
