#include "worker/nn/linear.h"

#include <torch/csrc/autograd/custom_function.h>

namespace finetuned {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Positions of an adapted part among the outputs, and its constants.
struct AdaptedPart {
  int64_t first = 0, size = 0, rank = 0;
  double scaling = 1, dropout = 0;
};

std::vector<AdaptedPart> AdaptedParts(const FusedLinear& linear) {
  std::vector<AdaptedPart> adapted;
  int64_t first = 0;
  for (const LinearPart& part : linear.parts()) {
    if (part.lora != nullptr) {
      adapted.push_back(
          {first, part.out_features, part.lora->a.size(0), part.lora->scaling, part.lora->dropout});
    }
    first += part.out_features;
  }
  return adapted;
}

// mask / (1 − p): what x is multiplied with.
at::Tensor DropoutScale(const at::Tensor& x, double p) {
  return at::empty_like(x).bernoulli_(1 - p).div_(1 - p);
}

// Inputs: x, then A and B of each adapted part in order. The linear outlives every graph that it is
// part of.
struct LoraLinearFunction : torch::autograd::Function<LoraLinearFunction> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, at::TensorList adapters,
                            const FusedLinear* linear, const std::optional<at::Tensor>& bias,
                            bool train) {
    const at::Tensor x = x_in.contiguous();
    const at::ScalarType dtype = x.scalar_type();
    const at::Tensor weight = linear->DenseWeight(dtype);
    at::Tensor y = bias ? at::addmm(*bias, x, weight.t()) : at::mm(x, weight.t());

    const std::vector<AdaptedPart> parts =
        adapters.empty() ? std::vector<AdaptedPart>() : AdaptedParts(*linear);
    bool drops = false;
    for (const AdaptedPart& part : parts) drops |= train && part.dropout > 0;
    // Saved: x, then one U = x Aᵀ for all parts; under dropout one scale and one U for each.
    variable_list saved = {x};
    std::vector<at::Tensor> a(parts.size());
    for (size_t i = 0; i < parts.size(); ++i) a[i] = adapters[2 * i];
    at::Tensor u;
    if (!parts.empty() && !drops) {
      u = at::mm(x, (a.size() == 1 ? a[0] : at::cat(a, 0)).to(dtype).t());
      saved.push_back(u);
    }
    int64_t column = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const AdaptedPart& part = parts[i];
      at::Tensor u_part;
      if (drops) {
        const at::Tensor scale = DropoutScale(x, part.dropout);
        u_part = at::mm(x * scale, a[i].to(dtype).t());
        saved.insert(saved.end(), {scale, u_part});
      } else {
        u_part = u.narrow(1, column, part.rank);
      }
      column += part.rank;
      at::Tensor y_part = y.narrow(1, part.first, part.size);
      y_part.addmm_(u_part, adapters[2 * i + 1].to(dtype).t(), 1, part.scaling);
    }
    for (const at::Tensor& tensor : adapters) saved.push_back(tensor);
    ctx->save_for_backward(saved);
    ctx->saved_data["linear"] = reinterpret_cast<int64_t>(linear);
    ctx->saved_data["drops"] = drops;
    ctx->saved_data["adapters"] = static_cast<int64_t>(adapters.size());
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto* linear = reinterpret_cast<const FusedLinear*>(ctx->saved_data["linear"].toInt());
    const bool drops = ctx->saved_data["drops"].toBool();
    const auto adapter_count = static_cast<size_t>(ctx->saved_data["adapters"].toInt());
    const at::Tensor *adapters = saved.data() + (saved.size() - adapter_count), &x = saved[0];
    const at::Tensor dy = grads[0].contiguous();
    const at::ScalarType dtype = x.scalar_type();
    const bool needs_dx = ctx->needs_input_grad(0);

    variable_list result(1 + adapter_count + 3);
    at::Tensor dx;
    if (needs_dx) dx = at::mm(dy, linear->DenseWeight(dtype));

    const std::vector<AdaptedPart> parts =
        adapter_count > 0 ? AdaptedParts(*linear) : std::vector<AdaptedPart>();
    int64_t ranks = 0;
    for (const AdaptedPart& part : parts) ranks += part.rank;
    // Without dropout the parts share x: dA of all is one product, and so is their share of dx.
    at::Tensor ds =
        !parts.empty() && !drops ? at::empty({x.size(0), ranks}, x.options()) : at::Tensor();
    int64_t column = 0;
    for (size_t i = 0; i < parts.size(); ++i) {
      const AdaptedPart& part = parts[i];
      const at::Tensor &a = adapters[2 * i], &b = adapters[2 * i + 1];
      const at::Tensor dy_part = dy.narrow(1, part.first, part.size);
      const at::Tensor u = drops ? saved[2 + 2 * i] : saved[1].narrow(1, column, part.rank);
      at::Tensor ds_part =
          drops ? at::empty({x.size(0), part.rank}, x.options()) : ds.narrow(1, column, part.rank);
      at::mm_out(ds_part, dy_part, b.to(dtype) * part.scaling);
      result[2 + 2 * i] = at::mm(dy_part.t(), u).to(b.scalar_type()).mul_(part.scaling);
      if (drops) {
        const at::Tensor& scale = saved[1 + 2 * i];
        result[1 + 2 * i] = at::mm(ds_part.t(), x * scale).to(a.scalar_type());
        if (needs_dx) dx.add_(at::mm(ds_part, a.to(dtype)).mul_(scale));
      }
      column += part.rank;
    }
    if (ds.defined()) {
      const at::Tensor da = at::mm(ds.t(), x);
      std::vector<at::Tensor> a(parts.size());
      column = 0;
      for (size_t i = 0; i < parts.size(); ++i) {
        a[i] = adapters[2 * i];
        result[1 + 2 * i] = da.narrow(0, column, parts[i].rank).to(a[i].scalar_type());
        column += parts[i].rank;
      }
      if (needs_dx) dx.addmm_(ds, (a.size() == 1 ? a[0] : at::cat(a, 0)).to(dtype));
    }
    result[0] = dx;
    return result;
  }
};

}  // namespace

FusedLinear::FusedLinear(std::vector<LinearPart> parts) : parts_(std::move(parts)) {
  TORCH_CHECK(!parts_.empty(), "a fused linear needs at least one part");
  std::vector<at::Tensor> weights, biases;
  for (const LinearPart& part : parts_) {
    TORCH_CHECK(part.in_features == parts_[0].in_features, part.name,
                ": fused parts must share their input size");
    TORCH_CHECK(part.quantized.has_value() == quantized(), part.name,
                ": fused parts must share their storage");
    TORCH_CHECK(part.bias.defined() == parts_[0].bias.defined(), part.name,
                ": only some fused parts have a bias");
    out_features_ += part.out_features;
    if (part.weight.defined()) weights.push_back(part.weight);
    if (part.bias.defined()) biases.push_back(part.bias);
  }
  if (!weights.empty()) {
    fused_weight_ = weights.size() == 1 ? weights[0].contiguous() : at::cat(weights, 0);
    int64_t first = 0;
    for (LinearPart& part : parts_) {
      part.weight = fused_weight_.narrow(0, first, part.out_features);
      first += part.out_features;
    }
  }
  if (!biases.empty()) fused_bias_ = biases.size() == 1 ? biases[0] : at::cat(biases, 0);
}

at::Tensor FusedLinear::DenseWeight(at::ScalarType dtype) const {
  if (fused_weight_.defined()) return fused_weight_;
  at::Tensor weight =
      at::empty({out_features_, in_features()}, parts_[0].quantized->packed.options().dtype(dtype));
  int64_t first = 0;
  for (const LinearPart& part : parts_) {
    Dequantize4BitInto(*part.quantized, weight.narrow(0, first, part.out_features));
    first += part.out_features;
  }
  return weight;
}

at::Tensor FusedLinear::Forward(const at::Tensor& x, bool train) const {
  std::vector<at::Tensor> adapters;
  if (adapters_enabled_) {
    for (const LinearPart& part : parts_) {
      if (part.lora != nullptr) adapters.insert(adapters.end(), {part.lora->a, part.lora->b});
    }
  }
  return LoraLinearFunction::apply(
      x, at::TensorList(adapters), this,
      fused_bias_.defined() ? std::optional<at::Tensor>(fused_bias_) : std::nullopt, train);
}

}  // namespace finetuned
