// adapter_config.json of a PEFT LoRA directory (peft, `LoraConfig`), read strictly: a setting that this code would have to
// ignore is refused instead.
//
// Errors: std::runtime_error naming file and key.
#pragma once

#include <cstdint>
#include <map>
#include <regex>
#include <stdexcept>
#include <string>

namespace finetuned {

struct PeftConfig {
  int64_t r = 0;
  double lora_alpha = 0, lora_dropout = 0;
  bool use_rslora = false;
  std::map<std::string, double> alpha_pattern;

  static PeftConfig Read(const std::string& adapter_dir);

  // What B · A of this module is multiplied by. `rank` is that of its tensors: rank_pattern only describes it.
  double Scaling(const std::string& module, int64_t rank) const;
};

// alpha / r, or alpha / √r (Kalajdzievski, "rsLoRA", 2023).
double LoraScaling(double alpha, int64_t rank, bool use_rslora);

// PEFT's rule for rank_pattern and alpha_pattern: a key is a regular expression for the whole name or its end after a dot;
// the first one in the order of the keys wins. Throws std::invalid_argument naming a key that is no expression.
template <typename Value, typename Map>
Value PatternValue(const Map& patterns, const std::string& name, Value otherwise) {
  const std::map<std::string, Value> ordered(patterns.begin(), patterns.end());
  for (const auto& [key, value] : ordered) {
    try {
      if (std::regex_match(name, std::regex("(.*\\.)?(" + key + ")"))) return value;
    } catch (const std::regex_error& error) {
      throw std::invalid_argument("lora pattern '" + key + "' is no valid regular expression: " + error.what());
    }
  }
  return otherwise;
}

}  // namespace finetuned
