// Decoders with random weights made in memory, for tests and benchmarks on a GPU.
#pragma once

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "worker/models/decoder.h"
#include "worker/quantization/quantized_tensor.h"

namespace finetuned {

struct RandomShape {
  int64_t hidden = 512, intermediate = 1376, heads = 8, kv_heads = 2, head_dim = 64, layers = 2,
          vocabulary = 1000;
};

inline ModelConfig RandomConfig(const RandomShape& shape) {
  ModelConfig config;
  config.model_type = "llama";
  config.architecture = "LlamaForCausalLM";
  config.hidden_size = shape.hidden;
  config.intermediate_size = shape.intermediate;
  config.num_hidden_layers = shape.layers;
  config.num_attention_heads = shape.heads;
  config.num_key_value_heads = shape.kv_heads;
  config.head_dim = shape.head_dim;
  config.vocab_size = shape.vocabulary;
  config.max_position_embeddings = 32768;
  config.rms_norm_eps = 1e-5;
  return config;
}

enum class RandomBase { kDense, kNf4, kFp4, kNf4SingleScales };

// bf16 weights on the GPU, the same for the same seed.
inline DecoderWeights RandomWeights(const RandomShape& shape, RandomBase base, uint64_t seed) {
  const at::NoGradGuard no_grad;
  at::manual_seed(seed);
  const auto options = at::TensorOptions().device(at::kCUDA).dtype(at::kBFloat16);
  const auto norm = [&] {
    return (at::randn({shape.hidden}, options.dtype(at::kFloat)) * 0.2 + 1).to(at::kBFloat16);
  };
  const auto linear = [&](const std::string& prefix, const std::vector<std::string>& names,
                          int64_t in, const std::vector<int64_t>& out) {
    std::vector<LinearPart> parts;
    for (size_t i = 0; i < names.size(); ++i) {
      LinearPart part;
      part.name = prefix + names[i];
      part.in_features = in;
      part.out_features = out[i];
      const at::Tensor weight =
          at::randn({out[i], in}, options).mul_(1 / std::sqrt(static_cast<double>(in)));
      if (base == RandomBase::kDense) {
        part.weight = weight;
      } else {
        part.quantized =
            Quantize4Bit(weight, base == RandomBase::kFp4 ? QuantType::kFp4 : QuantType::kNf4,
                         base != RandomBase::kNf4SingleScales);
      }
      parts.push_back(std::move(part));
    }
    return std::make_unique<FusedLinear>(std::move(parts));
  };
  DecoderWeights weights;
  weights.embedding = at::randn({shape.vocabulary, shape.hidden}, options);
  weights.head = at::randn({shape.vocabulary, shape.hidden}, options)
                     .mul_(1 / std::sqrt(static_cast<double>(shape.hidden)));
  weights.final_norm = norm();
  const int64_t q = shape.heads * shape.head_dim, k = shape.kv_heads * shape.head_dim;
  for (int64_t i = 0; i < shape.layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    DecoderBlock block;
    block.attention_norm = norm();
    block.mlp_norm = norm();
    block.qkv =
        linear(prefix + "self_attn.", {"q_proj", "k_proj", "v_proj"}, shape.hidden, {q, k, k});
    block.attention_out = linear(prefix + "self_attn.", {"o_proj"}, q, {shape.hidden});
    block.gate_up = linear(prefix + "mlp.", {"gate_proj", "up_proj"}, shape.hidden,
                           {shape.intermediate, shape.intermediate});
    block.mlp_down = linear(prefix + "mlp.", {"down_proj"}, shape.intermediate, {shape.hidden});
    weights.blocks.push_back(std::move(block));
  }
  return weights;
}

// The same values, dequantized, in fp32 on the CPU.
inline DecoderWeights Fp32Twin(const DecoderWeights& weights) {
  const auto wide = [](const at::Tensor& tensor) { return tensor.to(at::kCPU, at::kFloat); };
  const auto linear = [&](const FusedLinear& from) {
    std::vector<LinearPart> parts;
    const at::Tensor whole = wide(from.DenseWeight(at::kBFloat16));
    int64_t first = 0;
    for (LinearPart part : from.parts()) {
      part.quantized.reset();
      part.weight = whole.narrow(0, first, part.out_features);
      first += part.out_features;
      parts.push_back(std::move(part));
    }
    return std::make_unique<FusedLinear>(std::move(parts));
  };
  DecoderWeights twin;
  twin.embedding = wide(weights.embedding);
  twin.head = wide(weights.head);
  twin.final_norm = wide(weights.final_norm);
  for (const DecoderBlock& from : weights.blocks) {
    DecoderBlock block;
    block.attention_norm = wide(from.attention_norm);
    block.mlp_norm = wide(from.mlp_norm);
    block.qkv = linear(*from.qkv);
    block.attention_out = linear(*from.attention_out);
    block.gate_up = linear(*from.gate_up);
    block.mlp_down = linear(*from.mlp_down);
    twin.blocks.push_back(std::move(block));
  }
  return twin;
}

}  // namespace finetuned
