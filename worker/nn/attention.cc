#include "worker/nn/attention.h"

#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "kernels/attention/attention.h"

namespace finetuned {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

kernels::AttentionShape Shape(const at::Tensor& cu_seqlens, int64_t heads, int64_t kv_heads,
                              int64_t head_dim) {
  return {.cu_seqlens = cu_seqlens.const_data_ptr<int64_t>(),
          .documents = cu_seqlens.numel() - 1,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(head_dim)))};
}

struct CpuAttention : torch::autograd::Function<CpuAttention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv_in, const at::Tensor& cos,
                            const at::Tensor& sin, const at::Tensor& cu_seqlens, int64_t heads,
                            int64_t kv_heads, int64_t head_dim) {
    const at::Tensor qkv = qkv_in.detach().contiguous();
    at::Tensor out = at::empty({qkv.size(0), heads * head_dim}, qkv.options());
    at::Tensor lse = at::empty({qkv.size(0), heads}, qkv.options());
    kernels::RotaryAttentionForward(Shape(cu_seqlens, heads, kv_heads, head_dim),
                                    qkv.data_ptr<float>(), cos.const_data_ptr<float>(),
                                    sin.const_data_ptr<float>(), out.mutable_data_ptr<float>(),
                                    lse.mutable_data_ptr<float>());
    ctx->save_for_backward({qkv, cos, sin, cu_seqlens, out, lse});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["kv_heads"] = kv_heads;
    ctx->saved_data["head_dim"] = head_dim;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &qkv = saved[0], d_out = grads[0].contiguous();
    at::Tensor d_qkv = at::empty_like(qkv);
    kernels::RotaryAttentionBackward(
        Shape(saved[3], ctx->saved_data["heads"].toInt(), ctx->saved_data["kv_heads"].toInt(),
              ctx->saved_data["head_dim"].toInt()),
        d_out.const_data_ptr<float>(), qkv.const_data_ptr<float>(),
        saved[1].const_data_ptr<float>(), saved[2].const_data_ptr<float>(),
        saved[4].const_data_ptr<float>(), saved[5].const_data_ptr<float>(),
        d_qkv.mutable_data_ptr<float>());
    return {d_qkv, {}, {}, {}, {}, {}, {}};
  }
};

// FlashAttention-2 as torch carries it, over packed documents. Its backward pass is repeatable when
// torch is told to use deterministic algorithms, which the worker does unless asked not to.
struct FlashAttention : torch::autograd::Function<FlashAttention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const at::Tensor& cu_seqlens, int64_t max_seqlen) {
    auto [out, lse, rng_state, unused, mask] = at::_flash_attention_forward(
        q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, /*dropout_p=*/0.0,
        /*is_causal=*/true, /*return_debug_mask=*/false);
    ctx->save_for_backward({q, k, v, out, lse, cu_seqlens, rng_state, unused});
    ctx->saved_data["max"] = max_seqlen;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto s = ctx->get_saved_variables();
    const int64_t longest = ctx->saved_data["max"].toInt();
    auto [dq, dk, dv] = at::_flash_attention_backward(
        grads[0].contiguous(), s[0], s[1], s[2], s[3], s[4], s[5], s[5], longest, longest,
        /*dropout_p=*/0.0, /*is_causal=*/true, s[6], s[7]);
    return {dq, dk, dv, {}, {}};
  }
};

bool FlashRuns(const at::Tensor& qkv, int64_t head_dim) {
  return qkv.is_cuda() && (qkv.scalar_type() == at::kBFloat16 || qkv.scalar_type() == at::kHalf) &&
         head_dim % 8 == 0 && head_dim <= 256 && at::globalContext().userEnabledFlashSDP();
}

}  // namespace

at::Tensor RotateHalves(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const at::Tensor c = cos.to(x.scalar_type()).unsqueeze(-2),
                   s = sin.to(x.scalar_type()).unsqueeze(-2);
  const auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
}

at::Tensor DocumentAttention(const at::Tensor& qkv, const RotaryTable& table, const Batch& batch,
                             const AttentionConfig& config) {
  const int64_t t = qkv.size(0), h = config.heads, k = config.kv_heads, e = config.head_dim;
  const auto boundaries = at::from_blob(const_cast<int64_t*>(batch.cu_seqlens.data()),
                                        {static_cast<int64_t>(batch.cu_seqlens.size())}, at::kLong);
  if (qkv.is_cpu() && qkv.scalar_type() == at::kFloat) {
    return CpuAttention::apply(qkv, table.cos, table.sin, boundaries.clone(), h, k, e);
  }
  const auto parts = qkv.view({t, h + 2 * k, e}).split_with_sizes({h, k, k}, 1);
  const at::Tensor q = RotateHalves(parts[0], table.cos, table.sin);
  const at::Tensor key = RotateHalves(parts[1], table.cos, table.sin), &v = parts[2];
  if (FlashRuns(qkv, e)) {
    const at::Tensor device_boundaries = boundaries.to(at::kInt).to(qkv.device());
    return FlashAttention::apply(q, key, v, device_boundaries, batch.max_seqlen)
        .reshape({t, h * e});
  }
  std::vector<at::Tensor> outs;
  for (size_t i = 0; i + 1 < batch.cu_seqlens.size(); ++i) {
    const int64_t begin = batch.cu_seqlens[i], length = batch.cu_seqlens[i + 1] - begin;
    if (length == 0) continue;
    const auto heads_first = [&](const at::Tensor& x) {
      return x.narrow(0, begin, length).transpose(0, 1).unsqueeze(0);
    };
    const at::Tensor out =
        at::scaled_dot_product_attention(heads_first(q), heads_first(key), heads_first(v), {}, 0.0,
                                         /*is_causal=*/true, std::nullopt, /*enable_gqa=*/h != k);
    outs.push_back(out.squeeze(0).transpose(0, 1).reshape({length, h * e}));
  }
  return at::cat(outs, 0);
}

}  // namespace finetuned
