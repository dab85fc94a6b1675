// A decoder-only language model with a frozen base, ready for LoRA: what training, evaluation,
// generation and export see. Families (one file each, architectures.def) build it from nn/ blocks.
//
// Errors: exceptions (c10::Error, std::runtime_error) as everywhere in tensor code; worker/job
// catches them once.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "worker/nn/batch.h"
#include "worker/nn/linear.h"

namespace finetuned {

struct ModelConfig {
  std::string model_type;    // "llama"
  std::string architecture;  // "LlamaForCausalLM"
  int64_t hidden_size = 0, intermediate_size = 0, num_hidden_layers = 0;
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t vocab_size = 0, max_position_embeddings = 0;
  double rms_norm_eps = 1e-6, rope_theta = 10000;
  bool tie_word_embeddings = false, attention_bias = false, mlp_bias = false;
  nlohmann::json rope_scaling;  // null, or the block of config.json
  int64_t bos_token_id = -1;
  std::vector<int64_t> eos_token_ids;
  nlohmann::json raw;  // config.json as it stands
};

// Keys and values of sequences being generated. One cache row per sequence.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual int64_t length() const = 0;
};

class CausalLm {
 public:
  virtual ~CausalLm() = default;
  virtual const ModelConfig& config() const = 0;
  virtual at::Device device() const = 0;
  virtual at::ScalarType compute_dtype() const = 0;

  // Final hidden states (after the last norm): [t, d] compute dtype.
  virtual at::Tensor Hidden(const Batch& batch) = 0;
  // hidden [m, d] → logits [m, v] fp32.
  virtual at::Tensor Logits(const at::Tensor& hidden) = 0;
  // Sum over targets of −log p, fp32 scalar, differentiable. The vocabulary projection runs in
  // chunks and only over positions that have a target; full logits never exist.
  virtual at::Tensor LossSum(const Batch& batch) = 0;
  // −log p of each target, fp32 [t], 0 where there is none. No gradient.
  virtual at::Tensor TokenLosses(const Batch& batch) = 0;

  // Generation. `ids` [b, s] int64, left-padded with `pad_mask` [b, s] bool true at padding →
  // logits of the last position [b, v] fp32; keys and values are appended to the cache.
  virtual std::unique_ptr<KvCache> NewCache(int64_t sequences, int64_t max_length) = 0;
  virtual at::Tensor Step(const at::Tensor& ids, const at::Tensor& pad_mask, KvCache& cache) = 0;

  // Every LoRA-able linear in model order (attention and MLP projections of all layers).
  virtual std::vector<FusedLinear*> linears() = 0;
  virtual void SetAdaptersEnabled(bool enabled) = 0;
  // Recompute each block's activations in the backward pass instead of keeping them. Same numbers
  // either way.
  virtual void SetGradientCheckpointing(bool enabled) = 0;
  // Order-independent checksum of all frozen tensors, to prove that they never change.
  virtual uint64_t FrozenChecksum() = 0;
  // Bytes on the device by category: "weights" (dense), "quantized", "scales", "embeddings".
  virtual std::vector<std::pair<std::string, int64_t>> BytesByCategory() = 0;
};

struct LoadOptions {
  at::Device device = at::kCPU;
  at::ScalarType compute_dtype = at::kFloat;
  bool load_in_4bit = false;
  QuantType quant_type = QuantType::kNf4;
  bool double_quant = true;
  // unit "tensors" with bytes in the text; may be null.
  std::function<void(int64_t done, int64_t total, const std::string& text)> progress;
};

// Reads config.json and the safetensors (sharded or not) of an HF directory, tensor by tensor.
// Throws std::runtime_error naming file and tensor: missing, truncated, wrong shape or dtype;
// unsupported architecture lists the supported ones.
std::unique_ptr<CausalLm> LoadCausalLm(const std::string& model_dir, const LoadOptions& options);

}  // namespace finetuned
