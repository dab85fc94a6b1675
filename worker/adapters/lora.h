// LoRA on a CausalLm: choice of modules, initialisation, the trainable parameters by name, PEFT
// directories.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "finetuned/v1/job_spec.pb.h"
#include "worker/models/causal_lm.h"

namespace finetuned {

struct AdapterParameter {
  // As in PEFT's files: "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight".
  std::string name;
  at::Tensor tensor;  // fp32 leaf
};

// The adapters of one model. Parameters are in model order, A before B: the order of optimizer
// state and checkpoints.
class LoraAdapters {
 public:
  // Attaches fresh adapters. `spec` resolved (r, alpha, dropout are numbers). A target that matches
  // nothing throws std::invalid_argument listing the names there are. Initial A is a function of
  // seed and parameter name alone. A rank above a module's smaller dimension is cut to it, and
  // `warn` (may be null) is told.
  static std::unique_ptr<LoraAdapters> Inject(
      CausalLm& model, const v1::Lora& spec, uint64_t seed,
      const std::function<void(const std::string&)>& warn = nullptr);
  // Attaches the adapters of a PEFT directory, to continue or to use; checks names and shapes.
  static std::unique_ptr<LoraAdapters> LoadPeft(CausalLm& model, const std::string& peft_dir);

  const std::vector<AdapterParameter>& parameters() const { return parameters_; }
  std::vector<AdapterParameter>& parameters() { return parameters_; }
  int64_t trainable_parameters() const;
  // Writes adapter_config.json and adapter_model.safetensors (fp32), byte-for-byte deterministic.
  void SavePeft(const std::string& dir, const std::string& base_model_name) const;
  // Reads a directory written by SavePeft back: every tensor equals, to the bit. Throws std::runtime_error naming the first
  // that does not.
  void VerifyPeft(const std::string& dir) const;
  // Contents of adapter_config.json.
  std::string PeftConfigJson(const std::string& base_model_name) const;

 private:
  // An adapted module as it is written to adapter_config.json.
  struct Module {
    std::string name;
    int64_t rank = 0;
    double scaling = 1;
  };
  void Attach(LinearPart& part, at::Tensor a, at::Tensor b, double scaling, double dropout);

  std::vector<AdapterParameter> parameters_;
  std::vector<Module> modules_;
  std::vector<std::string> linear_names_;  // all of the model, to write short target names
  int64_t rank_ = 0;
  double dropout_ = 0;
  bool rslora_ = false;
};

// Names among `linear_names` that the spec selects, in order; throws std::invalid_argument as
// Inject does. Pure; used by inspect and the memory estimate without loading a model.
std::vector<std::string> SelectTargetModules(const std::vector<std::string>& linear_names,
                                             const v1::Lora& spec);

}  // namespace finetuned
