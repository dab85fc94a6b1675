#include "worker/adapters/peft_config.h"

#include <cmath>

#include "nlohmann/json.hpp"
#include "proto/base/file_util.h"

namespace finetuned {
namespace {

bool Asks(const nlohmann::json& config, const char* key) {
  const auto value = config.find(key);
  if (value == config.end() || value->is_null()) return false;
  return value->is_boolean() ? value->get<bool>() : !value->empty();
}

}  // namespace

PeftConfig PeftConfig::Read(const std::string& adapter_dir) {
  const std::string path = adapter_dir + "/adapter_config.json";
  const auto text = ReadFile(path);
  if (!text.ok()) throw std::runtime_error(std::string(text.status().message()) + "; a PEFT adapter directory holds it");
  const nlohmann::json config = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) throw std::runtime_error(path + ": is not a JSON object");
  if (config.value("peft_type", nlohmann::json()) != "LORA") throw std::runtime_error(path + ": peft_type must be LORA");
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "modules_to_save", "layer_replication",
                          "trainable_token_indices", "use_bdlora"}) {
    if (Asks(config, key)) throw std::runtime_error(path + ": " + key + " is not supported; only plain LoRA is");
  }
  if (config.value("bias", nlohmann::json("none")) != "none") throw std::runtime_error(path + ": bias must be none");
  const auto number = [&](const char* key, double otherwise) {
    const auto value = config.find(key);
    if (value == config.end() || value->is_null()) return otherwise;
    if (!value->is_number()) throw std::runtime_error(path + ": " + key + " must be a number");
    return value->get<double>();
  };
  PeftConfig result;
  const double nan = std::nan("");
  const double r = number("r", nan);
  result.lora_alpha = number("lora_alpha", nan);
  result.lora_dropout = number("lora_dropout", 0);
  if (!(r >= 1 && r <= 1e6) || !std::isfinite(result.lora_alpha)) {
    throw std::runtime_error(path + ": r must be an integer of at least 1 and lora_alpha a number");
  }
  result.r = static_cast<int64_t>(r);
  result.use_rslora = Asks(config, "use_rslora");
  if (const auto patterns = config.find("alpha_pattern"); patterns != config.end() && patterns->is_object()) {
    for (const auto& [key, value] : patterns->items()) {
      if (!value.is_number()) throw std::runtime_error(path + ": alpha_pattern '" + key + "' must be a number");
      result.alpha_pattern[key] = value.get<double>();
    }
  }
  return result;
}

double PeftConfig::Scaling(const std::string& module, int64_t rank) const {
  return LoraScaling(PatternValue<double>(alpha_pattern, module, lora_alpha), rank, use_rslora);
}

double LoraScaling(double alpha, int64_t rank, bool use_rslora) {
  const auto r = static_cast<double>(rank);
  return use_rslora ? alpha / std::sqrt(r) : alpha / r;
}

}  // namespace finetuned
