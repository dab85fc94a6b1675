#include <algorithm>
#include <cmath>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "worker/planning/estimate.h"
#include "worker/planning/planned_adapters.h"

namespace finetuned {
namespace {

std::string Gigabytes(uint64_t bytes) {
  return absl::StrFormat("%.2f GiB", static_cast<double>(bytes) / (1 << 30));
}

class Checker {
 public:
  Checker(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device)
      : spec_(spec), model_(model), device_(device) {}

  std::vector<v1::Problem> Run() {
    const bool trains = spec_.kind() == "finetune";
    CheckDevice();
    if (trains) CheckSequence();
    if (trains) CheckAdapters();
    const v1::Estimate estimate = EstimateRun(spec_, model_, device_, 0, 0);
    if (trains) CheckShare(estimate);
    CheckMemory(estimate.memory());
    CheckDisk(estimate.memory());
    return std::move(problems_);
  }

 private:
  void Add(v1::Problem::Severity severity, absl::string_view field, std::string message,
           std::string allowed, v1::FailureReason reason) {
    v1::Problem& problem = problems_.emplace_back();
    problem.set_severity(severity);
    problem.set_field(std::string(field));
    problem.set_message(std::move(message));
    problem.set_allowed(std::move(allowed));
    problem.set_reason(reason);
  }

  void CheckDevice() {
    const std::string& compute = spec_.quantization().bnb_4bit_compute_dtype();
    if (spec_.devices().value() > 0 && !device_.cuda) {
      Add(v1::Problem::ERROR, "devices",
          absl::StrCat("is ", spec_.devices().value(), ", but the job is planned for ", device_.id,
                       ", which is no GPU"),
          "0 to train on the CPU, or auto", v1::INVALID_SPEC);
    }
    if (spec_.bf16().value() && !device_.bf16) {
      Add(v1::Problem::ERROR, "bf16",
          device_.cuda ? absl::StrCat("is true, but ", device_.name,
                                      " has no bfloat16 (it needs compute capability 8.0)")
                       : "is true, but the CPU trains in float32",
          "false or auto", v1::INVALID_SPEC);
    }
    if (!spec_.quantization().load_in_4bit().value() || compute.empty() || compute == "auto")
      return;
    if (compute != (spec_.bf16().value() ? "bfloat16" : "float32")) {
      Add(v1::Problem::WARNING, "quantization.bnb_4bit_compute_dtype",
          absl::StrCat("is ", compute, ", but bf16 is ", spec_.bf16().value() ? "true" : "false",
                       "; bf16 decides what is computed in"),
          "auto", v1::INVALID_SPEC);
    }
  }

  void CheckSequence() {
    const int64_t most = model_.config.max_position_embeddings;
    if (spec_.max_seq_length() <= most) return;
    Add(v1::Problem::ERROR, "max_seq_length",
        absl::StrCat("is ", spec_.max_seq_length(), ", but the model was made for ", most,
                     " positions (max_position_embeddings)"),
        absl::StrCat("8…", most), v1::INVALID_SPEC);
  }

  void CheckAdapters() {
    std::vector<PlannedAdapter> adapters;
    try {
      adapters = PlanAdapters(spec_.lora(), model_);
    } catch (const std::invalid_argument& error) {
      // "lora.target_modules: what is wrong; what there is"
      const std::string text = error.what();
      const size_t colon = text.find(": ");
      const bool named = text.rfind("lora.", 0) == 0 && colon != std::string::npos;
      Add(v1::Problem::ERROR, named ? text.substr(0, colon) : "lora.target_modules",
          named ? text.substr(colon + 2) : text,
          "auto, all-linear, attention, mlp, or names that `inspect` lists", v1::INVALID_SPEC);
      return;
    }
    int64_t cut = 0;
    const PlannedAdapter* worst = nullptr;
    const auto smaller = [](const PlannedAdapter& adapter) {
      return std::min(adapter.linear->in_features, adapter.linear->out_features);
    };
    for (const PlannedAdapter& adapter : adapters) {
      if (adapter.asked_rank < smaller(adapter)) continue;
      ++cut;
      if (worst == nullptr || smaller(adapter) < smaller(*worst)) worst = &adapter;
    }
    if (worst == nullptr) return;
    Add(v1::Problem::WARNING, "lora.r",
        absl::StrCat("a rank of ", worst->asked_rank, " is not below the smaller dimension of ",
                     worst->linear->name, ", ", smaller(*worst), " (", cut,
                     " modules in all); there it saves nothing"),
        absl::StrCat("below ", smaller(*worst), ", or a rank_pattern for these modules"),
        v1::INVALID_SPEC);
  }

  // 1 % at 7B; a smaller model has a larger share at the same rank.
  void CheckShare(const v1::Estimate& estimate) {
    if (model_.parameters <= 0) return;
    const double total = static_cast<double>(model_.parameters);
    const double share = static_cast<double>(estimate.trainable_parameters()) / total;
    const double limit = std::min(0.5, 0.01 * std::sqrt(7e9 / total));
    if (share <= limit) return;
    Add(v1::Problem::WARNING, "lora.r",
        absl::StrFormat("%d of %d parameters train, %.1f %%; over %.1f %% is much for this model",
                        estimate.trainable_parameters(), model_.parameters, 100 * share,
                        100 * limit),
        "a lower lora.r, or fewer lora.target_modules", v1::INVALID_SPEC);
  }

  bool Fits(const v1::JobSpec& changed, double planned) const {
    const v1::Estimate estimate = EstimateRun(changed, model_, device_, 0, 0);
    return static_cast<double>(estimate.memory().device_peak_bytes()) <= planned;
  }

  // The first change that would fit, gentlest first, each on top of those before.
  std::string MemoryCure(double planned) const {
    v1::JobSpec changed = spec_;
    std::string cure;
    const auto tried = [&](absl::string_view text) {
      absl::StrAppend(&cure, cure.empty() ? "" : " ", text);
      return Fits(changed, planned);
    };
    if (!changed.gradient_checkpointing().value()) {
      changed.mutable_gradient_checkpointing()->set_value(true);
      if (tried("gradient_checkpointing=true")) return cure;
    }
    if (changed.per_device_train_batch_size().value() > 1) {
      changed.mutable_per_device_train_batch_size()->set_value(1);
      if (tried("per_device_train_batch_size=1")) return cure;
    }
    if (!changed.quantization().load_in_4bit().value()) {
      changed.mutable_quantization()->mutable_load_in_4bit()->set_value(true);
      if (tried("quantization.load_in_4bit=true")) return cure;
    }
    const std::string before = cure;
    for (int64_t length = changed.max_seq_length() / 2; length >= 128; length /= 2) {
      changed.set_max_seq_length(length);
      cure = before;
      if (tried(absl::StrCat("max_seq_length=", length))) return cure;
    }
    return "";
  }

  void CheckMemory(const v1::MemoryEstimate& memory) {
    const double fraction = spec_.has_memory_fraction() ? spec_.memory_fraction() : 0.9;
    const double planned = fraction * static_cast<double>(device_.free_bytes);
    if (static_cast<double>(memory.device_peak_bytes()) <= planned) return;
    std::string largest;
    uint64_t most = 0;
    for (const auto& [category, bytes] : memory.device_bytes()) {
      if (bytes < most || (bytes == most && category > largest)) continue;
      most = bytes;
      largest = category;
    }
    // The settings tried there are those of training.
    const std::string cure = spec_.kind() == "finetune" ? MemoryCure(planned) : "";
    const bool by_tokens = largest == "activations" || largest == "workspace";
    const absl::string_view blamed = !by_tokens ? "model_name_or_path"
                                     : spec_.per_device_train_batch_size().value() > 1
                                         ? "per_device_train_batch_size"
                                         : "max_seq_length";
    Add(v1::Problem::ERROR, blamed,
        absl::StrFormat("the job needs %s on %s, most of it %s (%s), but %s are planned: %g of %s "
                        "free",
                        Gigabytes(memory.device_peak_bytes()), device_.id, largest, Gigabytes(most),
                        Gigabytes(static_cast<uint64_t>(planned)), fraction,
                        Gigabytes(device_.free_bytes)),
        cure.empty() ? std::string("a smaller model, or a device with more free memory")
                     : absl::StrCat("it would fit with ", cure),
        device_.cuda ? v1::OUT_OF_MEMORY : v1::HOST_OUT_OF_MEMORY);
  }

  // The worker writes below its job's directory, which it is started in.
  void CheckDisk(const v1::MemoryEstimate& memory) {
    std::error_code error;
    const std::filesystem::space_info space = std::filesystem::space(".", error);
    if (error || memory.disk_bytes() <= space.available) return;
    Add(v1::Problem::ERROR, "export.formats",
        absl::StrCat("checkpoints and exports need ", Gigabytes(memory.disk_bytes()), ", but ",
                     Gigabytes(space.available), " of disk are free"),
        "fewer export.formats or gguf_types, a lower save_total_limit, or free disk space",
        v1::DISK_FULL);
  }

  const v1::JobSpec& spec_;
  const ModelSummary& model_;
  const DeviceProfile& device_;
  std::vector<v1::Problem> problems_;
};

}  // namespace

std::vector<v1::Problem> CheckAgainstModel(const v1::JobSpec& spec, const ModelSummary& model,
                                           const DeviceProfile& device) {
  return Checker(spec, model, device).Run();
}

}  // namespace finetuned
