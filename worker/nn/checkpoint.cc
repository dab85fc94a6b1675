#include "worker/nn/checkpoint.h"

#include <ATen/Context.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>

namespace finetuned {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor GeneratorState(at::Device device) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  return generator.get_state();
}
void SetGeneratorState(at::Device device, const at::Tensor& state) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

// What the backward pass needs beside tensors; kept by the graph.
struct Recomputation : torch::CustomClassHolder {
  TensorFunction f;
  size_t input_count = 0;
  std::vector<bool> defined, requires_grad;
  at::Tensor generator_state;
};

struct CheckpointFunction : torch::autograd::Function<CheckpointFunction> {
  static variable_list forward(AutogradContext* ctx, at::TensorList tensors,
                               Recomputation* recomputation) {
    auto kept = c10::intrusive_ptr<Recomputation>::reclaim_copy(recomputation);
    std::vector<at::Tensor> inputs, saved(tensors.begin(), tensors.end());
    size_t next = 0;
    for (bool defined : kept->defined) inputs.push_back(defined ? saved[next++] : at::Tensor());
    variable_list outputs = kept->f(inputs);
    ctx->save_for_backward(saved);
    ctx->saved_data["recomputation"] = c10::IValue::make_capsule(kept);
    return outputs;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto kept = c10::static_intrusive_pointer_cast<Recomputation>(
        ctx->saved_data["recomputation"].toCapsule());
    std::vector<at::Tensor> inputs, differentiated;
    std::vector<size_t> positions;
    size_t next = 0;
    for (bool defined : kept->defined) {
      if (!defined) {
        inputs.emplace_back();
        continue;
      }
      at::Tensor input = saved[next].detach().requires_grad_(kept->requires_grad[next]);
      if (kept->requires_grad[next]) {
        differentiated.push_back(input);
        positions.push_back(next);
      }
      inputs.push_back(input);
      ++next;
    }
    for (; next < saved.size(); ++next) {
      differentiated.push_back(saved[next]);
      positions.push_back(next);
    }
    variable_list outputs;
    {
      at::AutoGradMode enabled(true);
      at::Tensor now;
      if (kept->generator_state.defined()) {
        now = GeneratorState(saved[0].device());
        SetGeneratorState(saved[0].device(), kept->generator_state);
      }
      outputs = kept->f(inputs);
      if (now.defined()) SetGeneratorState(saved[0].device(), now);
    }
    variable_list roots, root_grads;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!outputs[i].requires_grad() || !grads[i].defined()) continue;
      roots.push_back(outputs[i]);
      root_grads.push_back(grads[i]);
    }
    const variable_list found =
        torch::autograd::grad(roots, differentiated, root_grads, /*retain_graph=*/std::nullopt,
                              /*create_graph=*/false, /*allow_unused=*/true);
    variable_list result(saved.size() + 1);
    for (size_t i = 0; i < positions.size(); ++i) result[positions[i]] = found[i];
    return result;
  }
};

}  // namespace

std::vector<at::Tensor> Checkpoint(const TensorFunction& f, const std::vector<at::Tensor>& inputs,
                                   const std::vector<at::Tensor>& parameters,
                                   bool uses_randomness) {
  auto recomputation = c10::make_intrusive<Recomputation>();
  recomputation->f = f;
  std::vector<at::Tensor> tensors;
  for (const at::Tensor& input : inputs) {
    recomputation->defined.push_back(input.defined());
    if (!input.defined()) continue;
    recomputation->requires_grad.push_back(input.requires_grad());
    tensors.push_back(input);
  }
  if (uses_randomness) recomputation->generator_state = GeneratorState(tensors.at(0).device());
  tensors.insert(tensors.end(), parameters.begin(), parameters.end());
  return CheckpointFunction::apply(at::TensorList(tensors), recomputation.get());
}

}  // namespace finetuned
