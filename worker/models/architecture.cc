#include "worker/models/architecture.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "worker/models/model_summary.h"

namespace finetuned {

#define ARCHITECTURE(name) extern const Architecture k##name;
#include "worker/models/architectures.def"
#undef ARCHITECTURE

const std::vector<const Architecture*>& Architectures() {
  static const std::vector<const Architecture*> all = {
#define ARCHITECTURE(name) &k##name,
#include "worker/models/architectures.def"
#undef ARCHITECTURE
  };
  return all;
}

std::vector<std::string> SupportedArchitectures() {
  std::vector<std::string> names;
  for (const Architecture* architecture : Architectures()) names.emplace_back(architecture->name);
  std::sort(names.begin(), names.end());
  return names;
}

const Architecture& FindArchitecture(const nlohmann::json& config) {
  std::string wanted;
  const auto listed = config.find("architectures");
  if (listed != config.end() && listed->is_array() && !listed->empty() &&
      (*listed)[0].is_string()) {
    wanted = (*listed)[0].get<std::string>();
  }
  const std::string model_type = config.contains("model_type") && config["model_type"].is_string()
                                     ? config["model_type"].get<std::string>()
                                     : "";
  for (const Architecture* architecture : Architectures()) {
    if (wanted.empty() ? model_type == architecture->model_type : wanted == architecture->name)
      return *architecture;
  }
  std::string supported;
  for (const std::string& name : SupportedArchitectures())
    supported += (supported.empty() ? "" : ", ") + name;
  throw std::runtime_error("config.json: architecture '" + (wanted.empty() ? model_type : wanted) +
                           "' is not supported; supported: " + supported);
}

nlohmann::json ReadConfigJson(const std::string& model_dir) {
  const std::string path = model_dir + "/config.json";
  std::error_code error;
  if (!std::filesystem::is_directory(model_dir, error))
    throw std::runtime_error(model_dir + ": is not a directory");
  std::ifstream stream(path);
  if (!stream)
    throw std::runtime_error(path +
                             ": is missing; a model directory holds config.json and safetensors");
  nlohmann::json config;
  try {
    config = nlohmann::json::parse(stream);
  } catch (const nlohmann::json::exception& parse_error) {
    throw std::runtime_error(path + ": not valid JSON: " + parse_error.what());
  }
  if (!config.is_object()) throw std::runtime_error(path + ": is not a JSON object");
  return config;
}

std::vector<RequiredTensor> RequiredTensors(const ModelConfig& config, const DecoderNames& names) {
  using Kind = RequiredTensor::Kind;
  const int64_t d = config.hidden_size, q = config.num_attention_heads * config.head_dim;
  const int64_t kv = config.num_key_value_heads * config.head_dim, f = config.intermediate_size;
  std::vector<RequiredTensor> all = {{names.embedding, {config.vocab_size, d}, Kind::kEmbedding}};
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = names.layer_prefix + std::to_string(layer) + ".";
    const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
      all.push_back({prefix + name + ".weight", {out, in}, Kind::kLinear});
      if (bias) all.push_back({prefix + name + ".bias", {out}, Kind::kBias});
    };
    all.push_back({prefix + names.attention_norm, {d}, Kind::kNorm});
    for (size_t i = 0; i < names.qkv.size(); ++i)
      linear(names.qkv[i], i == 0 ? q : kv, d, config.attention_bias);
    linear(names.attention_out, d, q, config.attention_bias);
    all.push_back({prefix + names.mlp_norm, {d}, Kind::kNorm});
    for (const std::string& name : names.gate_up) linear(name, f, d, config.mlp_bias);
    linear(names.mlp_down, d, f, config.mlp_bias);
  }
  all.push_back({names.final_norm, {d}, Kind::kNorm});
  if (!config.tie_word_embeddings) all.push_back({names.head, {config.vocab_size, d}, Kind::kHead});
  return all;
}

int64_t ConfigInt(const nlohmann::json& config, const char* key, int64_t otherwise, int64_t low,
                  int64_t high) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return otherwise;
  if (!found->is_number_integer() || found->get<int64_t>() < low || found->get<int64_t>() > high) {
    throw std::runtime_error(std::string("config.json: ") + key + " is " + found->dump() +
                             "; an integer from " + std::to_string(low) + " to " +
                             std::to_string(high) + " is possible");
  }
  return found->get<int64_t>();
}

int64_t ConfigInt(const nlohmann::json& config, const char* key, int64_t low, int64_t high) {
  if (!config.contains(key) || config[key].is_null()) {
    throw std::runtime_error(std::string("config.json: ") + key + " is missing");
  }
  return ConfigInt(config, key, 0, low, high);
}

double ConfigNumber(const nlohmann::json& config, const char* key, double otherwise) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return otherwise;
  if (!found->is_number())
    throw std::runtime_error(std::string("config.json: ") + key + " is no number");
  return found->get<double>();
}

bool ConfigBool(const nlohmann::json& config, const char* key, bool otherwise) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return otherwise;
  if (!found->is_boolean())
    throw std::runtime_error(std::string("config.json: ") + key + " is neither true nor false");
  return found->get<bool>();
}

}  // namespace finetuned
