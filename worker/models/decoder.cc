#include "worker/models/decoder.h"

#include <ATen/Functions.h>

#include <numeric>

#ifdef FINETUNED_CUDA
#include "worker/models/cuda_decoder.h"
#endif
#include "worker/models/tensor_checksum.h"
#include "worker/nn/checkpoint.h"
#include "worker/nn/loss.h"
#include "worker/nn/rms_norm.h"
#include "worker/nn/swiglu.h"

namespace finetuned {
namespace {

struct DecoderCache : KvCache {
  std::vector<at::Tensor> keys, values;  // per layer [b, k, max, e]
  at::Tensor pad;                        // [b, max] bool: positions that hold no token
  at::Tensor lengths;                    // [b] int64: tokens seen by each sequence
  int64_t used = 0, longest = 0;         // columns filled, of `longest`
  int64_t length() const override { return used; }
};

}  // namespace

Decoder::Decoder(ModelConfig config, DecoderWeights weights)
    : config_(std::move(config)),
      attention_{config_.num_attention_heads, config_.num_key_value_heads, config_.head_dim},
      rope_({config_.head_dim, config_.max_position_embeddings, config_.rope_theta,
             config_.rope_scaling}),
      weights_(std::move(weights)) {}

Decoder::Stream Decoder::Block(const DecoderBlock& block, const Stream& in,
                               const RotaryTable& table, const Batch& batch, bool train) const {
  const auto [h, n] = AddRmsNorm(in.first, in.second, block.attention_norm, config_.rms_norm_eps);
  const at::Tensor attended =
      DocumentAttention(block.qkv->Forward(n, train), table, batch, attention_);
  const auto [h2, n2] = AddRmsNorm(h, block.attention_out->Forward(attended, train), block.mlp_norm,
                                   config_.rms_norm_eps);
  return {h2, block.mlp_down->Forward(SwiGlu(block.gate_up->Forward(n2, train)), train)};
}

at::Tensor Decoder::FinalNorm(const Stream& stream) const {
  return AddRmsNorm(stream.first, stream.second, weights_.final_norm, config_.rms_norm_eps).second;
}

at::Tensor Decoder::Hidden(const Batch& batch) {
  TORCH_CHECK(batch.cu_seqlens.size() >= 2 && batch.cu_seqlens.back() == batch.input_ids.numel(),
              "cu_seqlens must end at the number of tokens, ", batch.input_ids.numel());
  // Dropout and recomputation belong to training alone.
  const bool train = at::GradMode::is_enabled();
  const RotaryTable table = rope_.Table(batch.position_ids, batch.max_seqlen - 1);
  Stream stream = {weights_.embedding.index_select(0, batch.input_ids), at::Tensor()};
  for (const DecoderBlock& block : weights_.blocks) {
    if (!train || !gradient_checkpointing_) {
      stream = Block(block, stream, table, batch, train);
      continue;
    }
    std::vector<at::Tensor> parameters;
    bool drops = false;
    for (const FusedLinear* linear :
         {block.qkv.get(), block.attention_out.get(), block.gate_up.get(), block.mlp_down.get()}) {
      for (const LinearPart& part : linear->parts()) {
        if (part.lora == nullptr) continue;
        parameters.insert(parameters.end(), {part.lora->a, part.lora->b});
        drops |= part.lora->dropout > 0;
      }
    }
    const auto run = [this, &block, table, batch](const std::vector<at::Tensor>& in) {
      const Stream out = Block(block, {in[0], in[1]}, table, batch, /*train=*/true);
      return std::vector<at::Tensor>{out.first, out.second};
    };
    const auto out = Checkpoint(run, {stream.first, stream.second}, parameters, drops);
    stream = {out[0], out[1]};
  }
  return FinalNorm(stream);
}

at::Tensor Decoder::Logits(const at::Tensor& hidden) {
  return at::mm(hidden, weights_.head.t()).to(at::kFloat);
}

CudaDecoder* Decoder::Fast() {
#ifdef FINETUNED_CUDA
  if (!fast_path_) return nullptr;
  std::vector<std::shared_ptr<LoraParameters>> adapters;
  for (const FusedLinear* linear : linears()) {
    for (const LinearPart& part : linear->parts()) adapters.push_back(part.lora);
  }
  if (adapters != fast_adapters_) {
    fast_.reset();
    if (CudaDecoder::Supports(config_, weights_)) {
      fast_ = std::make_shared<CudaDecoder>(config_, weights_, rope_);
    }
    fast_adapters_ = std::move(adapters);
  }
  return fast_.get();
#else
  return nullptr;
#endif
}

at::Tensor Decoder::LossSum(const Batch& batch) {
#ifdef FINETUNED_CUDA
  if (CudaDecoder* fast = Fast()) return fast->LossSum(batch, gradient_checkpointing_);
#endif
  return ChunkedLossSum(Hidden(batch), weights_.head, batch.targets);
}

at::Tensor Decoder::TokenLosses(const Batch& batch) {
  at::NoGradGuard no_grad;
#ifdef FINETUNED_CUDA
  if (CudaDecoder* fast = Fast()) return fast->TokenLosses(batch);
#endif
  return ChunkedTokenLosses(Hidden(batch), weights_.head, batch.targets);
}

std::unique_ptr<KvCache> Decoder::NewCache(int64_t sequences, int64_t max_length) {
  auto cache = std::make_unique<DecoderCache>();
  const auto options = weights_.embedding.options();
  for (size_t i = 0; i < weights_.blocks.size(); ++i) {
    for (auto* tensors : {&cache->keys, &cache->values}) {
      tensors->push_back(at::empty(
          {sequences, config_.num_key_value_heads, max_length, config_.head_dim}, options));
    }
  }
  cache->pad = at::zeros({sequences, max_length}, options.dtype(at::kBool));
  cache->lengths = at::zeros({sequences}, options.dtype(at::kLong));
  cache->longest = max_length;
  return cache;
}

at::Tensor Decoder::Step(const at::Tensor& ids, const at::Tensor& pad_mask, KvCache& opaque) {
  at::NoGradGuard no_grad;
  auto& cache = dynamic_cast<DecoderCache&>(opaque);
  const int64_t b = ids.size(0), s = ids.size(1), h = attention_.heads, k = attention_.kv_heads;
  const int64_t e = attention_.head_dim, past = cache.used, total = past + s;
  TORCH_CHECK(total <= cache.longest, "the cache holds ", cache.longest, " tokens, ", total,
              " were asked for");
  cache.pad.narrow(1, past, s).copy_(pad_mask);
  const at::Tensor real = pad_mask.logical_not().to(at::kLong);
  const at::Tensor positions =
      (real.cumsum(1) - 1 + cache.lengths.unsqueeze(1)).clamp_min(0).reshape({b * s});
  cache.lengths += real.sum(1);
  cache.used = total;
  RotaryTable table = rope_.Table(positions, total - 1);
  const at::Tensor cos = table.cos.view({b, s, -1}), sin = table.sin.view({b, s, -1});

  // A key is visible if it comes no later and holds a token; each position sees itself, so that no
  // row is empty.
  const auto longs = ids.options().dtype(at::kLong);
  const at::Tensor query_at = at::arange(past, total, longs).unsqueeze(1),
                   key_at = at::arange(total, longs);
  const at::Tensor is_token = cache.pad.narrow(1, 0, total).logical_not().view({b, 1, 1, total});
  const at::Tensor visible =
      key_at.le(query_at).logical_and(is_token).logical_or(key_at.eq(query_at));

  Stream stream = {weights_.embedding.index_select(0, ids.reshape({b * s})), at::Tensor()};
  for (size_t layer = 0; layer < weights_.blocks.size(); ++layer) {
    const DecoderBlock& block = weights_.blocks[layer];
    const auto [x, n] =
        AddRmsNorm(stream.first, stream.second, block.attention_norm, config_.rms_norm_eps);
    const auto parts =
        block.qkv->Forward(n).view({b, s, h + 2 * k, e}).split_with_sizes({h, k, k}, 2);
    const at::Tensor q = RotateHalves(parts[0], cos, sin).transpose(1, 2);
    at::Tensor keys = cache.keys[layer].narrow(2, 0, total),
               values = cache.values[layer].narrow(2, 0, total);
    keys.narrow(2, past, s).copy_(RotateHalves(parts[1], cos, sin).transpose(1, 2));
    values.narrow(2, past, s).copy_(parts[2].transpose(1, 2));
    const at::Tensor attended = at::scaled_dot_product_attention(
        q, keys, values, visible, 0.0, /*is_causal=*/false, std::nullopt, /*enable_gqa=*/h != k);
    const at::Tensor flat = attended.transpose(1, 2).reshape({b * s, h * e});
    const auto [x2, n2] =
        AddRmsNorm(x, block.attention_out->Forward(flat), block.mlp_norm, config_.rms_norm_eps);
    stream = {x2, block.mlp_down->Forward(SwiGlu(block.gate_up->Forward(n2)))};
  }
  return Logits(FinalNorm(stream).view({b, s, -1}).select(1, s - 1));
}

std::vector<FusedLinear*> Decoder::linears() {
  std::vector<FusedLinear*> all;
  for (const DecoderBlock& block : weights_.blocks) {
    all.insert(all.end(), {block.qkv.get(), block.attention_out.get(), block.gate_up.get(),
                           block.mlp_down.get()});
  }
  return all;
}

void Decoder::SetAdaptersEnabled(bool enabled) {
  for (FusedLinear* linear : linears()) linear->set_adapters_enabled(enabled);
}

std::vector<std::pair<std::string, at::Tensor>> Decoder::FrozenTensors() const {
  std::vector<std::pair<std::string, at::Tensor>> all = {{"embedding", weights_.embedding},
                                                         {"final_norm", weights_.final_norm}};
  if (!config_.tie_word_embeddings) all.emplace_back("head", weights_.head);
  for (size_t i = 0; i < weights_.blocks.size(); ++i) {
    const DecoderBlock& block = weights_.blocks[i];
    all.emplace_back(std::to_string(i) + ".attention_norm", block.attention_norm);
    all.emplace_back(std::to_string(i) + ".mlp_norm", block.mlp_norm);
    for (const FusedLinear* linear :
         {block.qkv.get(), block.attention_out.get(), block.gate_up.get(), block.mlp_down.get()}) {
      for (const LinearPart& part : linear->parts()) {
        if (part.bias.defined()) all.emplace_back(part.name + ".bias", part.bias);
        if (part.weight.defined()) all.emplace_back(part.name + ".weight", part.weight);
        if (!part.quantized) continue;
        all.emplace_back(part.name + ".packed", part.quantized->packed);
        all.emplace_back(part.name + ".absmax", part.quantized->absmax);
        if (part.quantized->double_quantized()) {
          all.emplace_back(part.name + ".nested_absmax", part.quantized->nested_absmax);
        }
      }
    }
  }
  return all;
}

uint64_t Decoder::FrozenChecksum() {
  uint64_t sum = 0;
  for (const auto& [name, tensor] : FrozenTensors()) sum += TensorChecksum(name, tensor);
  return sum;
}

std::vector<std::pair<std::string, int64_t>> Decoder::BytesByCategory() {
  int64_t weights = 0, quantized = 0, scales = 0, embeddings = 0;
  for (const auto& [name, tensor] : FrozenTensors()) {
    const auto ends = [&name = name](const char* suffix) { return name.ends_with(suffix); };
    int64_t& category = name == "embedding" || name == "head"       ? embeddings
                        : ends(".packed")                           ? quantized
                        : ends(".absmax") || ends(".nested_absmax") ? scales
                                                                    : weights;
    category += static_cast<int64_t>(tensor.nbytes());
  }
  return {{"weights", weights},
          {"quantized", quantized},
          {"scales", scales},
          {"embeddings", embeddings}};
}

}  // namespace finetuned
