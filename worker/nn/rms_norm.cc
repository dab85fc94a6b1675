#include "worker/nn/rms_norm.h"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/rms_norm/rms_norm.h"

namespace finetuned {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool UseKernel(const at::Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

struct AddRmsNormFunction : torch::autograd::Function<AddRmsNormFunction> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x_in,
                               const std::optional<at::Tensor>& delta_in, const at::Tensor& weight,
                               double eps) {
    const at::Tensor x = x_in.contiguous();
    const at::Tensor delta = delta_in.has_value() ? delta_in->contiguous() : at::Tensor();
    at::Tensor h, y, rstd;
    if (UseKernel(x)) {
      const int64_t t = x.size(0), d = x.size(1);
      h = delta.defined() ? at::empty_like(x) : x;
      y = at::empty_like(x);
      rstd = at::empty({t}, x.options());
      kernels::AddRmsNormForward(x.const_data_ptr<float>(),
                                 delta.defined() ? delta.const_data_ptr<float>() : nullptr,
                                 weight.const_data_ptr<float>(), static_cast<float>(eps), t, d,
                                 delta.defined() ? h.mutable_data_ptr<float>() : nullptr,
                                 y.mutable_data_ptr<float>(), rstd.mutable_data_ptr<float>());
    } else {
      h = delta.defined() ? x + delta : x;
      const at::Tensor wide = h.to(at::kFloat);
      rstd = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
      y = weight * (wide * rstd).to(x.scalar_type());
    }
    ctx->save_for_backward({delta.defined() ? h : x, weight, rstd});
    ctx->saved_data["has_delta"] = delta.defined();
    // An output that is an input would alias it in the graph; this happens once a model, after the
    // embedding.
    return {delta.defined() ? h : h.clone(), y};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &h = saved[0], &weight = saved[1], &rstd = saved[2];
    at::Tensor dx;
    if (!grads[1].defined()) {
      dx = grads[0];
    } else if (UseKernel(h)) {
      const at::Tensor dy = grads[1].contiguous();
      const at::Tensor dh = grads[0].defined() ? grads[0].contiguous() : at::Tensor();
      dx = at::empty_like(h);
      kernels::AddRmsNormBackward(
          dy.const_data_ptr<float>(), dh.defined() ? dh.const_data_ptr<float>() : nullptr,
          h.const_data_ptr<float>(), weight.const_data_ptr<float>(), rstd.const_data_ptr<float>(),
          h.size(0), h.size(1), dx.mutable_data_ptr<float>());
    } else {
      const at::Tensor normalised = h.to(at::kFloat) * rstd;
      const at::Tensor g = grads[1].to(at::kFloat) * weight;
      dx = rstd * (g - normalised * (g * normalised).mean(-1, /*keepdim=*/true));
      if (grads[0].defined()) dx = dx + grads[0];
      dx = dx.to(h.scalar_type());
    }
    return {dx, ctx->saved_data["has_delta"].toBool() ? dx : at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> AddRmsNorm(const at::Tensor& x, const at::Tensor& delta,
                                             const at::Tensor& weight, double eps) {
  variable_list out = AddRmsNormFunction::apply(
      x, delta.defined() ? std::optional<at::Tensor>(delta) : std::nullopt, weight, eps);
  return {out[0], out[1]};
}

}  // namespace finetuned
