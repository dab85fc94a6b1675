// The decoder that all families of architectures.def share: token embedding, blocks of normalised
// attention and gated MLP, a last norm, a vocabulary projection. Built from worker/nn.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "worker/models/causal_lm.h"
#include "worker/nn/attention.h"
#include "worker/nn/linear.h"
#include "worker/nn/rope.h"

namespace finetuned {

struct DecoderBlock {
  at::Tensor attention_norm, mlp_norm;  // [d]
  std::unique_ptr<FusedLinear> qkv, attention_out, gate_up, mlp_down;
};

struct DecoderWeights {
  at::Tensor embedding;   // [v, d]
  at::Tensor head;        // [v, d]; the embedding itself when tied
  at::Tensor final_norm;  // [d]
  std::vector<DecoderBlock> blocks;
};

class CudaDecoder;

class Decoder : public CausalLm {
 public:
  Decoder(ModelConfig config, DecoderWeights weights);

  const ModelConfig& config() const override { return config_; }
  at::Device device() const override { return weights_.embedding.device(); }
  at::ScalarType compute_dtype() const override { return weights_.embedding.scalar_type(); }
  at::Tensor Hidden(const Batch& batch) override;
  at::Tensor Logits(const at::Tensor& hidden) override;
  at::Tensor LossSum(const Batch& batch) override;
  at::Tensor TokenLosses(const Batch& batch) override;
  std::unique_ptr<KvCache> NewCache(int64_t sequences, int64_t max_length) override;
  at::Tensor Step(const at::Tensor& ids, const at::Tensor& pad_mask, KvCache& cache) override;
  std::vector<FusedLinear*> linears() override;
  void SetAdaptersEnabled(bool enabled) override;
  void SetGradientCheckpointing(bool enabled) override { gradient_checkpointing_ = enabled; }
  uint64_t FrozenChecksum() override;
  std::vector<std::pair<std::string, int64_t>> BytesByCategory() override;
  // Losses may run on the hand-ordered path of cuda_decoder.h (the default, where it is possible) or
  // always as the composition of blocks.
  void SetFastPath(bool enabled) { fast_path_ = enabled; }

 private:
  // A residual stream and what is still to be added to it: the addition is fused with the norm that
  // follows.
  using Stream = std::pair<at::Tensor, at::Tensor>;
  Stream Block(const DecoderBlock& block, const Stream& in, const RotaryTable& table,
               const Batch& batch, bool train) const;
  at::Tensor FinalNorm(const Stream& stream) const;
  // The hand-ordered path for the adapters there are now, or null.
  CudaDecoder* Fast();
  // Every frozen tensor with a name.
  std::vector<std::pair<std::string, at::Tensor>> FrozenTensors() const;

  ModelConfig config_;
  AttentionConfig attention_;
  Rope rope_;
  DecoderWeights weights_;
  bool gradient_checkpointing_ = false, fast_path_ = true;
  std::shared_ptr<CudaDecoder> fast_;
  // The adapters that fast_ was made for.
  std::optional<std::vector<std::shared_ptr<LoraParameters>>> fast_adapters_;
};

}  // namespace finetuned
