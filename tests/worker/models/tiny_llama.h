// Random Llamas of a few thousand weights as model directories, and what tests put into them. Needs worker_models.
#pragma once

#include <ATen/Functions.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "worker/models/architecture.h"
#include "worker/models/safetensors.h"

namespace finetuned {

// 2 layers, hidden size 32, 4 query and 2 key/value heads, 61 tokens, 64 positions.
inline nlohmann::json TinyLlamaConfig() {
  return {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"},  {"hidden_size", 32},
          {"intermediate_size", 48},               {"num_hidden_layers", 2}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2},              {"vocab_size", 61},       {"max_position_embeddings", 64}};
}

struct TinyLlamaFiles {
  at::ScalarType dtype = at::kFloat;
  int shards = 1;    // layers are dealt out to them in turn
  std::string skip;  // a tensor that is left out
};

// Writes config.json and weights that fit it, drawn from torch's default generator.
inline void WriteLlama(const std::filesystem::path& dir, const nlohmann::json& config, const TinyLlamaFiles& files = {}) {
  std::filesystem::create_directories(dir);
  std::ofstream(dir / "config.json") << config;
  const Architecture& architecture = FindArchitecture(config);
  std::vector<std::vector<SafetensorsWriter::Declared>> shards(static_cast<size_t>(files.shards));
  nlohmann::json weight_map;
  const auto name_of = [&](size_t shard) {
    return files.shards == 1 ? std::string("model.safetensors") : "model-" + std::to_string(shard + 1) + ".safetensors";
  };
  for (const RequiredTensor& tensor : RequiredTensors(architecture.parse(config), architecture.names())) {
    if (tensor.name == files.skip) continue;
    const size_t layer = tensor.name.rfind("model.layers.", 0) == 0 ? static_cast<size_t>(tensor.name[13] - '0') : 0;
    const size_t shard = layer % shards.size();
    shards[shard].push_back({tensor.name, files.dtype, tensor.shape});
    weight_map[tensor.name] = name_of(shard);
  }
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    SafetensorsWriter writer((dir / name_of(shard)).string(), shards[shard], {{"format", "pt"}});
    for (const auto& tensor : shards[shard]) {
      writer.Write(tensor.name, (at::randn(tensor.shape) * 0.2 + (tensor.shape.size() == 1 ? 1.0 : 0.0)).to(files.dtype));
    }
    writer.Finish();
  }
  if (files.shards > 1) {
    std::ofstream(dir / "model.safetensors.index.json") << nlohmann::json{{"weight_map", weight_map}};
  }
}

// The same model each time.
inline void WriteTinyLlama(const std::filesystem::path& dir) {
  at::manual_seed(5);
  WriteLlama(dir, TinyLlamaConfig());
}

}  // namespace finetuned
