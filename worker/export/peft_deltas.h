// The updates of a PEFT LoRA directory, one module at a time, without a model: what merging adds to
// the weights.
//
// Errors: std::runtime_error naming file and tensor; a setting that would be ignored is refused.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "worker/models/safetensors.h"

namespace finetuned {

class PeftDeltas {
 public:
  // Reads adapter_config.json and maps adapter_model.safetensors.
  static PeftDeltas Open(const std::string& adapter_dir);

  // Names as in the base model's files without ".weight": "model.layers.0.self_attn.q_proj".
  std::vector<std::string> modules() const;
  bool Has(const std::string& module) const { return scaling_.count(module) != 0; }
  // weight [out, in] fp32 → weight + scaling · B · A, fp32.
  at::Tensor AddTo(const std::string& module, const at::Tensor& weight) const;

 private:
  std::string path_;
  std::shared_ptr<SafetensorsFile> file_;
  std::map<std::string, double> scaling_;  // by module
};

}  // namespace finetuned
