// AdamW over the adapters (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019), fp32 state, by torch's
// fused multi-tensor kernel: the numbers are those of torch.optim.AdamW(fused=True).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace finetuned {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
};

class AdamW {
 public:
  // parameters: fp32 leaves on one device; kept by reference semantics of at::Tensor.
  AdamW(std::vector<at::Tensor> parameters, const AdamWOptions& options);

  // One update from the gradients, which must all be defined.
  void Step(double learning_rate);
  // Gradients become undefined; the next backward pass writes rather than adds.
  void ZeroGrad();

  // State in parameter order; exp_avg and exp_avg_sq have the parameters' shapes, fp32.
  std::vector<at::Tensor>& exp_avg() { return exp_avg_; }
  std::vector<at::Tensor>& exp_avg_sq() { return exp_avg_sq_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps);
  std::vector<at::Tensor> Gradients() const;

 private:
  std::vector<at::Tensor> parameters_, exp_avg_, exp_avg_sq_, state_steps_;
  AdamWOptions options_;
  int64_t steps_ = 0;
};

// Global 2-norm over all gradients, as torch.nn.utils.get_total_norm computes it; a scalar tensor on their device.
at::Tensor GlobalGradNorm(const std::vector<at::Tensor>& gradients);

}  // namespace finetuned
