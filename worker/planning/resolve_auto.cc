#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "worker/planning/estimate.h"

namespace finetuned {
namespace {

constexpr int64_t kQuantizeFrom = 1'000'000'000;  // parameters
constexpr int64_t kLargestAutoBatch = 8;
constexpr double kTokensPerUpdate = 16384;
constexpr int64_t kAutoRank = 16;

// An unset value counts as auto: `spec` comes with its defaults filled in.
template <typename ValueOrAuto>
bool IsAuto(const ValueOrAuto& value) {
  return value.kind_case() != ValueOrAuto::kValue;
}

std::string Gigabytes(double bytes) { return absl::StrFormat("%.2f GiB", bytes / (1 << 30)); }

class Resolver {
 public:
  Resolver(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device)
      : model_(model), device_(device) {
    result_.spec = spec;
  }

  ResolvedAuto Run() {
    ResolveDevice();
    ResolveLora();
    ResolveQuantization();
    ResolveBatch();
    ResolveAccumulation();
    if (IsAuto(spec().greater_is_better())) {
      spec().mutable_greater_is_better()->set_value(false);
      Say("greater_is_better", "false", "a lower loss is better");
    }
    return std::move(result_);
  }

 private:
  v1::JobSpec& spec() { return result_.spec; }

  void Say(absl::string_view key, absl::string_view value, absl::string_view why) {
    result_.reasons.push_back(absl::StrCat(key, ": ", value, " (auto: ", why, ")"));
  }

  double Planned() const {
    const double fraction =
        result_.spec.has_memory_fraction() ? result_.spec.memory_fraction() : 0.9;
    return fraction * static_cast<double>(device_.free_bytes);
  }

  double Peak(const v1::JobSpec& candidate) const {
    return static_cast<double>(
        EstimateRun(candidate, model_, device_, 0, 0).memory().device_peak_bytes());
  }

  // Peak with these rows and this plan of activations.
  double Peak(int64_t rows, bool checkpointing) const {
    v1::JobSpec candidate = result_.spec;
    candidate.mutable_per_device_train_batch_size()->set_value(rows);
    candidate.mutable_gradient_checkpointing()->set_value(checkpointing);
    return Peak(candidate);
  }

  void ResolveDevice() {
    if (IsAuto(spec().devices())) {
      spec().mutable_devices()->set_value(device_.cuda ? 1 : 0);
      Say("devices", device_.cuda ? "1" : "0",
          device_.cuda ? device_.name : std::string("there is no GPU to use"));
    }
    if (IsAuto(spec().bf16())) {
      spec().mutable_bf16()->set_value(device_.bf16);
      Say("bf16", device_.bf16 ? "true" : "false",
          device_.bf16   ? absl::StrCat(device_.name, " has bfloat16 tensor cores")
          : device_.cuda ? absl::StrCat(device_.name, " is below compute capability 8.0")
                         : "the CPU computes in float32");
    }
    v1::Quantization& quantization = *spec().mutable_quantization();
    if (!quantization.has_bnb_4bit_compute_dtype() ||
        quantization.bnb_4bit_compute_dtype() == "auto") {
      quantization.set_bnb_4bit_compute_dtype(spec().bf16().value() ? "bfloat16" : "float32");
      Say("quantization.bnb_4bit_compute_dtype", quantization.bnb_4bit_compute_dtype(),
          "as bf16 says");
    }
  }

  void ResolveLora() {
    v1::Lora& lora = *spec().mutable_lora();
    if (IsAuto(lora.r())) {
      lora.mutable_r()->set_value(kAutoRank);
      Say("lora.r", absl::StrCat(kAutoRank), "enough for following instructions");
    }
    if (IsAuto(lora.alpha())) {
      lora.mutable_alpha()->set_value(2.0 * static_cast<double>(lora.r().value()));
      Say("lora.alpha", absl::StrCat(lora.alpha().value()),
          absl::StrCat("twice lora.r, which is ", lora.r().value()));
    }
    if (IsAuto(lora.dropout())) {
      lora.mutable_dropout()->set_value(0);
      Say("lora.dropout", "0", "early stopping guards against overfitting, at no cost in speed");
    }
  }

  void ResolveQuantization() {
    v1::BoolOrAuto& in_4bit = *spec().mutable_quantization()->mutable_load_in_4bit();
    if (!IsAuto(in_4bit)) return;
    in_4bit.set_value(false);
    const bool large = model_.parameters >= kQuantizeFrom;
    // The least memory that the job could run in without quantization.
    const int64_t rows = IsAuto(spec().per_device_train_batch_size())
                             ? 1
                             : spec().per_device_train_batch_size().value();
    const bool checkpointing =
        IsAuto(spec().gradient_checkpointing()) || spec().gradient_checkpointing().value();
    const double peak = Peak(rows, checkpointing);
    const bool fits = peak <= Planned();
    in_4bit.set_value(large || !fits);
    Say("quantization.load_in_4bit", in_4bit.value() ? "true" : "false",
        large  ? absl::StrFormat("%.2fB parameters are at least 1B",
                                 static_cast<double>(model_.parameters) / 1e9)
        : fits ? absl::StrFormat("%.0fM parameters, under 1B, fit in full precision",
                                 static_cast<double>(model_.parameters) / 1e6)
               : absl::StrCat("without it ", Gigabytes(peak), " are needed of ",
                              Gigabytes(Planned()), " planned"));
  }

  // The largest power of two of rows that fits; 0 when not even one does.
  int64_t LargestBatch(bool checkpointing) const {
    for (int64_t rows = kLargestAutoBatch; rows > 0; rows /= 2) {
      if (Peak(rows, checkpointing) <= Planned()) return rows;
    }
    return 0;
  }

  // Recomputing costs a third of the time, a small batch costs less: checkpointing comes last.
  void ResolveBatch() {
    const bool auto_rows = IsAuto(spec().per_device_train_batch_size());
    const bool auto_checkpointing = IsAuto(spec().gradient_checkpointing());
    int64_t rows = spec().per_device_train_batch_size().value();
    bool checkpointing = spec().gradient_checkpointing().value();
    if (auto_rows) {
      rows = LargestBatch(checkpointing);
      if (rows == 0 && auto_checkpointing) {
        checkpointing = true;
        rows = LargestBatch(checkpointing);
      }
      rows = std::max<int64_t>(1, rows);
    } else if (auto_checkpointing) {
      checkpointing = Peak(rows, false) > Planned();
    }
    spec().mutable_per_device_train_batch_size()->set_value(rows);
    spec().mutable_gradient_checkpointing()->set_value(checkpointing);
    const double peak = Peak(spec());
    const std::string need =
        absl::StrCat(Gigabytes(peak), " of ", Gigabytes(Planned()), " planned");
    if (auto_rows) {
      Say("per_device_train_batch_size", absl::StrCat(rows),
          peak <= Planned() ? absl::StrCat("largest power of two up to 8 that fits: ", need)
                            : absl::StrCat("not even one row fits: ", need));
    }
    if (auto_checkpointing) {
      Say("gradient_checkpointing", checkpointing ? "true" : "false",
          checkpointing ? absl::StrCat("all activations would need ", Gigabytes(Peak(rows, false)),
                                       " of ", Gigabytes(Planned()), " planned")
                        : absl::StrCat("all activations fit: ", need));
    }
    if (IsAuto(spec().per_device_eval_batch_size())) {
      spec().mutable_per_device_eval_batch_size()->set_value(rows);
      Say("per_device_eval_batch_size", absl::StrCat(rows), "as per_device_train_batch_size");
    }
  }

  void ResolveAccumulation() {
    if (!IsAuto(spec().gradient_accumulation_steps())) return;
    const int64_t tokens = spec().per_device_train_batch_size().value() * spec().max_seq_length();
    const auto steps = std::max<int64_t>(
        1, std::llround(kTokensPerUpdate / static_cast<double>(std::max<int64_t>(1, tokens))));
    spec().mutable_gradient_accumulation_steps()->set_value(steps);
    Say("gradient_accumulation_steps", absl::StrCat(steps),
        absl::StrCat("an update of about 16k tokens; a micro-batch has up to ", tokens));
  }

  const ModelSummary& model_;
  const DeviceProfile& device_;
  ResolvedAuto result_;
};

}  // namespace

ResolvedAuto ResolveAuto(const v1::JobSpec& spec, const ModelSummary& model,
                         const DeviceProfile& device) {
  return Resolver(spec, model, device).Run();
}

}  // namespace finetuned
