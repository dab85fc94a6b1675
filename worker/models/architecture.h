// A model family as a plug-in: one file with a const descriptor, one line in architectures.def.
#pragma once

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "worker/models/causal_lm.h"

namespace finetuned {

// Names of a decoder's tensors in the checkpoint. Those of a layer follow layer_prefix + index +
// ".".
struct DecoderNames {
  std::string embedding, final_norm, head;  // full tensor names
  std::string layer_prefix;                 // "model.layers."
  std::string attention_norm, mlp_norm;     // tensor names within a layer
  std::vector<std::string> qkv, gate_up;    // linears within a layer, without ".weight"
  std::string attention_out, mlp_down;
};

struct Architecture {
  const char* name;         // as in config.json's "architectures"
  const char* model_type;   // as in config.json's "model_type"
  const char* description;  // for people
  // config.json → what the decoder needs; throws std::runtime_error naming the key.
  ModelConfig (*parse)(const nlohmann::json& config);
  DecoderNames (*names)();
};

// All descriptors of architectures.def.
const std::vector<const Architecture*>& Architectures();
// The one that config.json asks for; throws std::runtime_error naming it and the supported ones.
const Architecture& FindArchitecture(const nlohmann::json& config);
// Reads and parses config.json of a model directory.
nlohmann::json ReadConfigJson(const std::string& model_dir);

// A tensor that a checkpoint must hold.
struct RequiredTensor {
  enum class Kind { kEmbedding, kHead, kNorm, kLinear, kBias };
  std::string name;
  std::vector<int64_t> shape;
  Kind kind;
};
// In model order. A tied head is not listed.
std::vector<RequiredTensor> RequiredTensors(const ModelConfig& config, const DecoderNames& names);

// Fields of config.json, checked: absent is `otherwise`, anything but a number in [low, high] is an
// error naming the key.
int64_t ConfigInt(const nlohmann::json& config, const char* key, int64_t otherwise, int64_t low,
                  int64_t high);
// The same, but the key must be there.
int64_t ConfigInt(const nlohmann::json& config, const char* key, int64_t low, int64_t high);
double ConfigNumber(const nlohmann::json& config, const char* key, double otherwise);
bool ConfigBool(const nlohmann::json& config, const char* key, bool otherwise);

}  // namespace finetuned
