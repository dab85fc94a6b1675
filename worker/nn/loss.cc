#include "worker/nn/loss.h"

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/cross_entropy/cross_entropy.h"

namespace finetuned {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Logits of a chunk take at most this many values (fp32: 64 MiB), whatever the vocabulary.
constexpr int64_t kChunkValues = 16 << 20;

// Losses of `rows` of hidden; with `gradient` also replaces logits by softmax − onehot and returns
// them.
std::pair<at::Tensor, at::Tensor> ChunkLosses(const at::Tensor& rows, const at::Tensor& weight,
                                              const at::Tensor& targets, bool gradient) {
  at::Tensor logits = at::mm(rows, weight.t());
  if (logits.is_cpu() && logits.scalar_type() == at::kFloat) {
    at::Tensor losses = at::empty({rows.size(0)}, logits.options());
    kernels::CrossEntropy(logits.mutable_data_ptr<float>(), targets.const_data_ptr<int64_t>(),
                          rows.size(0), weight.size(0), gradient, losses.mutable_data_ptr<float>());
    return {losses, logits};
  }
  const at::Tensor log_p = at::log_softmax(logits.to(at::kFloat), -1);
  const at::Tensor at_target = targets.unsqueeze(1);
  at::Tensor losses = log_p.gather(1, at_target).squeeze(1).neg();
  if (!gradient) return {losses, at::Tensor()};
  at::Tensor d_logits = log_p.exp();
  d_logits.scatter_add_(1, at_target, at::full_like(at_target, -1, d_logits.options()));
  return {losses, d_logits.to(rows.scalar_type())};
}

template <typename Visit>
void ForEachChunk(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                  bool gradient, const Visit& visit) {
  const at::Tensor positions = targets.ne(kIgnoreIndex).nonzero().squeeze(1);
  const int64_t vocabulary = weight.size(0),
                largest = targets.numel() > 0 ? targets.max().item<int64_t>() : -1;
  TORCH_CHECK(largest < vocabulary, "target ", largest, " is beyond the vocabulary of ",
              vocabulary);
  const int64_t chunk = std::max<int64_t>(1, kChunkValues / vocabulary);
  for (int64_t begin = 0; begin < positions.numel(); begin += chunk) {
    const at::Tensor at = positions.narrow(0, begin, std::min(chunk, positions.numel() - begin));
    auto [losses, d_logits] = ChunkLosses(hidden.index_select(0, at), weight,
                                          targets.index_select(0, at).contiguous(), gradient);
    visit(at, losses, d_logits);
  }
}

struct LossSumFunction : torch::autograd::Function<LossSumFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& targets, bool gradient) {
    at::Tensor total = at::zeros({}, hidden.options().dtype(at::kFloat));
    at::Tensor d_hidden = gradient ? at::zeros_like(hidden) : at::Tensor();
    ForEachChunk(hidden, weight, targets, gradient,
                 [&](const at::Tensor& at, const at::Tensor& losses, const at::Tensor& d_logits) {
                   total.add_(losses.sum());
                   if (gradient) d_hidden.index_copy_(0, at, at::mm(d_logits, weight));
                 });
    if (gradient) ctx->save_for_backward({d_hidden});
    return total;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor d_hidden = ctx->get_saved_variables()[0];
    return {d_hidden * grads[0].to(d_hidden.scalar_type()), {}, {}, {}};
  }
};

}  // namespace

at::Tensor ChunkedLossSum(const at::Tensor& hidden, const at::Tensor& weight,
                          const at::Tensor& targets) {
  return LossSumFunction::apply(hidden, weight, targets,
                                at::GradMode::is_enabled() && hidden.requires_grad());
}

at::Tensor ChunkedTokenLosses(const at::Tensor& hidden, const at::Tensor& weight,
                              const at::Tensor& targets) {
  at::NoGradGuard no_grad;
  at::Tensor all = at::zeros({hidden.size(0)}, hidden.options().dtype(at::kFloat));
  ForEachChunk(hidden, weight, targets, /*gradient=*/false,
               [&](const at::Tensor& at, const at::Tensor& losses, const at::Tensor&) {
                 all.index_copy_(0, at, losses);
               });
  return all;
}

}  // namespace finetuned
