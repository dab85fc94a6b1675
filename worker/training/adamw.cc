#include "worker/training/adamw.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

namespace finetuned {

AdamW::AdamW(std::vector<at::Tensor> parameters, const AdamWOptions& options)
    : parameters_(std::move(parameters)), options_(options) {
  for (const at::Tensor& parameter : parameters_) {
    TORCH_CHECK(parameter.scalar_type() == at::kFloat, "AdamW: parameters must be float32");
    exp_avg_.push_back(at::zeros_like(parameter).detach());
    exp_avg_sq_.push_back(at::zeros_like(parameter).detach());
    state_steps_.push_back(at::scalar_tensor(0, parameter.options().requires_grad(false)));
  }
}

std::vector<at::Tensor> AdamW::Gradients() const {
  std::vector<at::Tensor> gradients;
  gradients.reserve(parameters_.size());
  for (const at::Tensor& parameter : parameters_) gradients.push_back(parameter.grad());
  return gradients;
}

void AdamW::Step(double learning_rate) {
  c10::NoGradGuard no_grad;
  ++steps_;
  at::_foreach_add_(state_steps_, 1);
  at::_fused_adamw_(parameters_, Gradients(), exp_avg_, exp_avg_sq_, /*max_exp_avg_sqs=*/{}, state_steps_,
                    learning_rate, options_.beta1, options_.beta2, options_.weight_decay, options_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false);
}

void AdamW::ZeroGrad() {
  for (at::Tensor& parameter : parameters_) parameter.mutable_grad().reset();
}

void AdamW::set_steps(int64_t steps) {
  steps_ = steps;
  for (at::Tensor& step : state_steps_) step.fill_(static_cast<double>(steps));
}

at::Tensor GlobalGradNorm(const std::vector<at::Tensor>& gradients) {
  return at::linalg_vector_norm(at::stack(at::_foreach_norm(gradients, 2)), 2);
}

}  // namespace finetuned
