#include "worker/adapters/lora.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <stdexcept>

#include "nlohmann/json.hpp"
#include "proto/base/file_util.h"
#include "worker/adapters/peft_config.h"
#include "worker/models/safetensors.h"

namespace finetuned {
namespace {

constexpr char kPrefix[] = "base_model.model.";

std::string ParameterName(const std::string& module, char which) {
  return kPrefix + module + ".lora_" + which + ".weight";
}

// FNV-1a, so that the initial values of a parameter depend on its name and not on its place.
uint64_t NameHash(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ULL;
  return hash;
}

std::vector<std::string> LinearNames(CausalLm& model) {
  std::vector<std::string> names;
  for (FusedLinear* linear : model.linears()) {
    for (const LinearPart& part : linear->parts()) names.push_back(part.name);
  }
  return names;
}

at::Tensor InitialA(const v1::Lora& spec, const std::string& parameter, int64_t rank, int64_t in,
                    uint64_t seed) {
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed ^ NameHash(parameter));
  at::Tensor a = at::empty({rank, in}, at::kFloat);
  if (spec.init_lora_weights() == "gaussian")
    return a.normal_(0, 1.0 / static_cast<double>(rank), generator);
  if (!spec.init_lora_weights().empty() && spec.init_lora_weights() != "default") {
    throw std::invalid_argument("lora.init_lora_weights: '" + spec.init_lora_weights() +
                                "' is not built; allowed: default, gaussian");
  }
  // Kaiming-uniform with a = √5 (He et al., 2015), as PEFT: the bound is √(6 / ((1 + 5) fan_in)).
  const double bound = 1 / std::sqrt(static_cast<double>(in));
  return a.uniform_(-bound, bound, generator);
}

nlohmann::json NumberJson(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

}  // namespace

void LoraAdapters::Attach(LinearPart& part, at::Tensor a, at::Tensor b, double scaling,
                          double dropout) {
  part.lora = std::make_shared<LoraParameters>();
  part.lora->a = a.requires_grad_(true);
  part.lora->b = b.requires_grad_(true);
  part.lora->scaling = scaling;
  part.lora->dropout = dropout;
  modules_.push_back({part.name, a.size(0), scaling});
  parameters_.push_back({ParameterName(part.name, 'A'), part.lora->a});
  parameters_.push_back({ParameterName(part.name, 'B'), part.lora->b});
}

std::unique_ptr<LoraAdapters> LoraAdapters::Inject(
    CausalLm& model, const v1::Lora& spec, uint64_t seed,
    const std::function<void(const std::string&)>& warn) {
  const int64_t r = spec.r().value();
  const double alpha = spec.alpha().value(), dropout = spec.dropout().value();
  if (r < 1)
    throw std::invalid_argument("lora.r is " + std::to_string(r) +
                                "; a rank of at least 1 is needed");
  if (!(alpha > 0)) throw std::invalid_argument("lora.alpha must be over 0");
  if (!(dropout >= 0 && dropout < 1))
    throw std::invalid_argument("lora.dropout must be at least 0 and under 1");
  auto adapters = std::make_unique<LoraAdapters>();
  adapters->linear_names_ = LinearNames(model);
  adapters->rank_ = r;
  adapters->dropout_ = dropout;
  adapters->rslora_ = spec.use_rslora();
  const bool scaled = !spec.has_lora_alpha_scaling() || spec.lora_alpha_scaling();
  const std::vector<std::string> selected = SelectTargetModules(adapters->linear_names_, spec);
  const std::set<std::string> targets(selected.begin(), selected.end());
  for (FusedLinear* linear : model.linears()) {
    for (LinearPart& part : linear->parts()) {
      part.lora = nullptr;
      if (targets.count(part.name) == 0) continue;
      int64_t rank =
          PatternValue<int64_t>(spec.rank_pattern(), part.name, r);
      const int64_t most = std::min(part.in_features, part.out_features);
      if (rank > most) {
        if (warn) {
          warn("lora.r " + std::to_string(rank) + " is over the smaller dimension of " + part.name +
               "; " + std::to_string(most) + " is used there");
        }
        rank = most;
      }
      const double module_alpha = PatternValue<double>(spec.alpha_pattern(), part.name, alpha);
      const at::Tensor a =
          InitialA(spec, ParameterName(part.name, 'A'), rank, part.in_features, seed);
      adapters->Attach(part, a.to(model.device()),
                       at::zeros({part.out_features, rank}, a.options()).to(model.device()),
                       scaled ? LoraScaling(module_alpha, rank, spec.use_rslora()) : module_alpha,
                       dropout);
    }
  }
  return adapters;
}

std::unique_ptr<LoraAdapters> LoraAdapters::LoadPeft(CausalLm& model, const std::string& peft_dir) {
  const std::string weights_path = peft_dir + "/adapter_model.safetensors";
  const PeftConfig config = PeftConfig::Read(peft_dir);
  const auto file = SafetensorsFile::Open(weights_path);
  auto adapters = std::make_unique<LoraAdapters>();
  adapters->linear_names_ = LinearNames(model);
  adapters->rank_ = config.r;
  adapters->rslora_ = config.use_rslora;
  adapters->dropout_ = config.lora_dropout;
  std::set<std::string> used;
  for (FusedLinear* linear : model.linears()) {
    for (LinearPart& part : linear->parts()) {
      part.lora = nullptr;
      const std::string a_name = ParameterName(part.name, 'A'),
                        b_name = ParameterName(part.name, 'B');
      if (file->entries().count(a_name) == 0) continue;
      if (file->entries().count(b_name) == 0) {
        throw std::runtime_error(weights_path + ": tensor '" + b_name +
                                 "' is missing beside its lora_A");
      }
      const at::Tensor a = file->Tensor(a_name), b = file->Tensor(b_name);
      if (a.dim() != 2 || b.dim() != 2 || a.size(1) != part.in_features ||
          b.size(0) != part.out_features || a.size(0) != b.size(1)) {
        throw std::runtime_error(weights_path + ": the adapter of '" + part.name +
                                 "' does not fit the model's " + std::to_string(part.out_features) +
                                 " × " + std::to_string(part.in_features) + " layer");
      }
      used.insert({a_name, b_name});
      const auto load = [&](const at::Tensor& x) {
        return x.to(model.device(), at::kFloat, false, /*copy=*/true);
      };
      adapters->Attach(part, load(a), load(b), config.Scaling(part.name, a.size(0)),
                       adapters->dropout_);
    }
  }
  for (const auto& [name, entry] : file->entries()) {
    if (used.count(name) == 0) {
      throw std::runtime_error(weights_path + ": tensor '" + name +
                               "' belongs to no linear layer of this model");
    }
  }
  if (used.empty()) throw std::runtime_error(weights_path + ": holds no adapter");
  return adapters;
}

int64_t LoraAdapters::trainable_parameters() const {
  int64_t total = 0;
  for (const AdapterParameter& parameter : parameters_) total += parameter.tensor.numel();
  return total;
}

std::string LoraAdapters::PeftConfigJson(const std::string& base_model_name) const {
  // PEFT divides by each module's own rank, so alpha is what gives our scaling there.
  const auto alpha = [&](const Module& module) {
    const auto r = static_cast<double>(module.rank);
    return module.scaling * (rslora_ ? std::sqrt(r) : r);
  };
  const double common_alpha = modules_.empty() ? 1 : alpha(modules_.front());
  nlohmann::json rank_pattern = nlohmann::json::object(), alpha_pattern = nlohmann::json::object();
  std::set<std::string> adapted;
  for (const Module& module : modules_) {
    adapted.insert(module.name);
    if (module.rank != rank_) rank_pattern[module.name] = module.rank;
    if (alpha(module) != common_alpha) alpha_pattern[module.name] = NumberJson(alpha(module));
  }
  // The last part of a name stands for all modules that end so, if all of them are adapted.
  std::set<std::string> targets;
  for (const std::string& name : adapted) {
    const std::string kind = name.substr(name.rfind('.') + 1);
    const bool all =
        std::all_of(linear_names_.begin(), linear_names_.end(), [&](const std::string& other) {
          return !other.ends_with("." + kind) || adapted.count(other) != 0;
        });
    targets.insert(all ? kind : name);
  }
  const nlohmann::json config = {{"alpha_pattern", alpha_pattern},
                                 {"base_model_name_or_path", base_model_name},
                                 {"bias", "none"},
                                 {"fan_in_fan_out", false},
                                 {"inference_mode", true},
                                 {"init_lora_weights", true},
                                 {"lora_alpha", NumberJson(common_alpha)},
                                 {"lora_dropout", dropout_},
                                 {"modules_to_save", nullptr},
                                 {"peft_type", "LORA"},
                                 {"r", rank_},
                                 {"rank_pattern", rank_pattern},
                                 {"target_modules", targets},
                                 {"task_type", "CAUSAL_LM"},
                                 {"use_dora", false},
                                 {"use_rslora", rslora_}};
  return config.dump(2) + "\n";
}

void LoraAdapters::SavePeft(const std::string& dir, const std::string& base_model_name) const {
  std::vector<AdapterParameter> sorted = parameters_;
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& x, const auto& y) { return x.name < y.name; });
  std::vector<SafetensorsWriter::Declared> declared;
  for (const AdapterParameter& parameter : sorted) {
    declared.push_back({parameter.name, at::kFloat, parameter.tensor.sizes().vec()});
  }
  absl::Status status = MakeDirectories(dir);
  if (status.ok())
    status = WriteFileAtomic(dir + "/adapter_config.json", PeftConfigJson(base_model_name));
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
  SafetensorsWriter writer(dir + "/adapter_model.safetensors", declared, {{"format", "pt"}});
  for (const AdapterParameter& parameter : sorted) writer.Write(parameter.name, parameter.tensor);
  writer.Finish();
}

void LoraAdapters::VerifyPeft(const std::string& dir) const {
  const std::string path = dir + "/adapter_model.safetensors";
  PeftConfig::Read(dir);
  const auto file = SafetensorsFile::Open(path);
  for (const AdapterParameter& parameter : parameters_) {
    if (file->entries().count(parameter.name) == 0 ||
        !at::equal(file->Tensor(parameter.name), parameter.tensor.detach().to(at::kCPU))) {
      throw std::runtime_error(path + ": tensor '" + parameter.name +
                               "' reads back other than it was written; check the disk");
    }
  }
}

}  // namespace finetuned
