#include <ATen/Context.h>
#include <ATen/Functions.h>

#include "worker/models/architecture.h"
#include "worker/models/decoder.h"
#include "worker/models/model_summary.h"
#include "worker/models/safetensors.h"

namespace finetuned {
namespace {

// Reads tensors one by one, so that beside the model only one tensor (or one fused layer) is in
// memory.
class Loader {
 public:
  Loader(const std::string& model_dir, const ModelConfig& config, const DecoderNames& names,
         const LoadOptions& options)
      : files_(SafetensorsModel::Open(model_dir)),
        config_(config),
        names_(names),
        options_(options) {
    total_ = static_cast<int64_t>(RequiredTensors(config, names).size());
  }

  DecoderWeights Load() {
    DecoderWeights weights;
    weights.embedding = Tensor(names_.embedding);
    for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      const std::string prefix = names_.layer_prefix + std::to_string(layer) + ".";
      const auto linear = [&](const std::vector<std::string>& parts, bool bias) {
        std::vector<LinearPart> loaded;
        for (const std::string& part : parts) loaded.push_back(Linear(prefix + part, bias));
        return std::make_unique<FusedLinear>(std::move(loaded));
      };
      DecoderBlock block;
      block.attention_norm = Tensor(prefix + names_.attention_norm);
      block.qkv = linear(names_.qkv, config_.attention_bias);
      block.attention_out = linear({names_.attention_out}, config_.attention_bias);
      block.mlp_norm = Tensor(prefix + names_.mlp_norm);
      block.gate_up = linear(names_.gate_up, config_.mlp_bias);
      block.mlp_down = linear({names_.mlp_down}, config_.mlp_bias);
      weights.blocks.push_back(std::move(block));
    }
    weights.final_norm = Tensor(names_.final_norm);
    weights.head = config_.tie_word_embeddings ? weights.embedding : Tensor(names_.head);
    return weights;
  }

 private:
  at::Tensor Tensor(const std::string& name) {
    // A copy even where dtype and device are those of the file: nothing of the model may change
    // with the file.
    at::Tensor tensor =
        files_->Tensor(name).to(options_.device, options_.compute_dtype, /*non_blocking=*/false,
                                /*copy=*/true);
    Progress(tensor);
    return tensor;
  }

  LinearPart Linear(const std::string& name, bool bias) {
    LinearPart part;
    part.name = name;
    if (options_.load_in_4bit) {
      const at::Tensor weight = files_->Tensor(name + ".weight").to(options_.device);
      part.quantized = Quantize4Bit(weight, options_.quant_type, options_.double_quant);
      part.out_features = weight.size(0);
      part.in_features = weight.size(1);
      Progress(weight);
    } else {
      part.weight = Tensor(name + ".weight");
      part.out_features = part.weight.size(0);
      part.in_features = part.weight.size(1);
    }
    if (bias) part.bias = Tensor(name + ".bias");
    return part;
  }

  void Progress(const at::Tensor& tensor) {
    ++done_;
    bytes_ += tensor.nbytes();
    if (options_.progress) {
      options_.progress(done_, total_, std::to_string(bytes_ / 1'000'000) + " MB read");
    }
  }

  std::shared_ptr<SafetensorsModel> files_;
  const ModelConfig& config_;
  const DecoderNames& names_;
  const LoadOptions& options_;
  int64_t done_ = 0, total_ = 0;
  size_t bytes_ = 0;
};

}  // namespace

std::unique_ptr<CausalLm> LoadCausalLm(const std::string& model_dir, const LoadOptions& options) {
  const at::NoGradGuard no_grad;
  const ModelSummary summary =
      InspectModelDir(model_dir);  // every shape and dtype is checked before memory is taken
  const Architecture& architecture = FindArchitecture(summary.config.raw);
  const DecoderNames names = architecture.names();
  DecoderWeights weights = Loader(model_dir, summary.config, names, options).Load();
  return std::make_unique<Decoder>(summary.config, std::move(weights));
}

}  // namespace finetuned
