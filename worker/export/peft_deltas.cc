#include "worker/export/peft_deltas.h"

#include <ATen/ops/addmm.h>

#include <stdexcept>

#include "worker/adapters/peft_config.h"

namespace finetuned {
namespace {

constexpr char kPrefix[] = "base_model.model.";
constexpr char kSuffixA[] = ".lora_A.weight", kSuffixB[] = ".lora_B.weight";

}  // namespace

PeftDeltas PeftDeltas::Open(const std::string& adapter_dir) {
  const PeftConfig config = PeftConfig::Read(adapter_dir);
  PeftDeltas deltas;
  deltas.path_ = adapter_dir + "/adapter_model.safetensors";
  deltas.file_ = SafetensorsFile::Open(deltas.path_);
  const auto& entries = deltas.file_->entries();
  for (const auto& [name, entry] : entries) {
    const bool is_a = name.ends_with(kSuffixA);
    if (!name.starts_with(kPrefix) || (!is_a && !name.ends_with(kSuffixB))) {
      throw std::runtime_error(deltas.path_ + ": tensor '" + name +
                               "' is not part of a LoRA adapter that can be merged");
    }
    const size_t begin = sizeof(kPrefix) - 1;
    const std::string module = name.substr(begin, name.size() - begin - (sizeof(kSuffixA) - 1));
    const auto a = entries.find(kPrefix + module + kSuffixA);
    const auto b = entries.find(kPrefix + module + kSuffixB);
    if (a == entries.end() || b == entries.end() || a->second.shape.size() != 2 ||
        b->second.shape.size() != 2 || a->second.shape[0] != b->second.shape[1] ||
        a->second.shape[0] < 1) {
      throw std::runtime_error(deltas.path_ + ": '" + module +
                               "' needs lora_A [r, in] and lora_B [out, r] of one rank");
    }
    deltas.scaling_[module] = config.Scaling(module, a->second.shape[0]);
  }
  if (deltas.scaling_.empty()) throw std::runtime_error(deltas.path_ + ": holds no adapter");
  return deltas;
}

std::vector<std::string> PeftDeltas::modules() const {
  std::vector<std::string> names;
  for (const auto& [name, scaling] : scaling_) names.push_back(name);
  return names;
}

at::Tensor PeftDeltas::AddTo(const std::string& module, const at::Tensor& weight) const {
  const at::Tensor a = file_->Tensor(kPrefix + module + kSuffixA).to(at::kFloat);
  const at::Tensor b = file_->Tensor(kPrefix + module + kSuffixB).to(at::kFloat);
  if (weight.dim() != 2 || weight.size(0) != b.size(0) || weight.size(1) != a.size(1)) {
    throw std::runtime_error(path_ + ": the adapter of '" + module +
                             "' does not fit the base model's weight");
  }
  return at::addmm(weight, b, a, /*beta=*/1, /*alpha=*/scaling_.at(module));
}

}  // namespace finetuned
