// A random Llama of a few thousand weights, as a model directory. Needs worker_models.
#pragma once

#include <ATen/Functions.h>

#include <filesystem>
#include <fstream>

#include "worker/models/architecture.h"
#include "worker/models/safetensors.h"

namespace finetuned {

// 2 layers, hidden size 32, 4 query and 2 key/value heads, 61 tokens, 64 positions; the same
// weights each time.
inline void WriteTinyLlama(const std::filesystem::path& dir) {
  std::filesystem::create_directories(dir);
  const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"hidden_size", 32},
                                 {"intermediate_size", 48},
                                 {"num_hidden_layers", 2},
                                 {"num_attention_heads", 4},
                                 {"num_key_value_heads", 2},
                                 {"vocab_size", 61},
                                 {"max_position_embeddings", 64}};
  std::ofstream(dir / "config.json") << config;
  at::manual_seed(5);
  const Architecture& architecture = FindArchitecture(config);
  std::vector<SafetensorsWriter::Declared> declared;
  for (const RequiredTensor& tensor :
       RequiredTensors(architecture.parse(config), architecture.names())) {
    declared.push_back({tensor.name, at::kFloat, tensor.shape});
  }
  SafetensorsWriter writer((dir / "model.safetensors").string(), declared, {});
  for (const auto& tensor : declared) {
    writer.Write(tensor.name,
                 at::randn(tensor.shape) * 0.2 + (tensor.shape.size() == 1 ? 1.0 : 0.0));
  }
  writer.Finish();
}

}  // namespace finetuned
