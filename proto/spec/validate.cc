// Checks of a job that need no model, file or device.
#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "proto/spec/leaf_value.h"
#include "proto/spec/spec.h"
#include "proto/spec/spec_internal.h"

namespace finetuned {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

// Caps against hostile specs; far above any honest use.
constexpr int kMaxListEntries = 4096;
constexpr size_t kMaxText = 4096;
constexpr size_t kMaxLongText = 1 << 16;  // system prompts, prompts of kind generate
constexpr size_t kMaxProblems = 100;
constexpr size_t kMaxProblemsPerList = 5;

// The band of lr · alpha/r outside of which LoRA runs in the field barely move (below) or diverge
// (above): a factor of about 20 around QLoRA's 2e-4 · 2.
constexpr double kBandLow = 2e-5;
constexpr double kBandHigh = 2e-3;

const char* const kColumns[] = {"instruction",     "response",  "system",        "context",
                                "category",        "source",    "quality_score", "timestamp",
                                "conversation_id", "sample_id", "messages",      "text",
                                "prompt",          "completion"};

std::string Number(double value) { return absl::StrFormat("%.6g", value); }

class Validator {
 public:
  explicit Validator(const v1::JobSpec& spec) : spec_(spec), resolved_(ResolveDefaults(spec)) {}

  std::vector<v1::Problem> Run() {
    for (const KeyInfo& info : AllKeys()) {
      if (info.in_list) {
        int index = 0;
        for (const v1::DatasetSource& source : spec_.dataset().sources()) {
          const std::string name(info.chain.back()->name());
          CheckLeaf(source, info, absl::StrCat("dataset.sources[", index++, "].", name));
        }
      } else {
        CheckLeaf(ParentOf(spec_, info), info, info.path);
      }
    }
    CheckRequired();
    CheckTogether();
    CheckAdvice();
    return std::move(problems_);
  }

 private:
  void Add(v1::Problem::Severity severity, std::string_view field, std::string message,
           std::string allowed) {
    if (problems_.size() >= kMaxProblems) return;
    v1::Problem problem;
    problem.set_severity(severity);
    problem.set_field(std::string(field));
    problem.set_message(std::move(message));
    problem.set_allowed(std::move(allowed));
    if (severity == v1::Problem::ERROR) problem.set_reason(v1::INVALID_SPEC);
    problems_.push_back(std::move(problem));
  }
  void Error(std::string_view field, std::string message, std::string allowed) {
    Add(v1::Problem::ERROR, field, std::move(message), std::move(allowed));
  }
  void Warn(std::string_view field, std::string message, std::string allowed) {
    Add(v1::Problem::WARNING, field, std::move(message), std::move(allowed));
  }

  // ---- one key
  // -----------------------------------------------------------------------------------------------------

  void CheckLeaf(const Message& parent, const KeyInfo& info, const std::string& path) {
    const FieldDescriptor* field = info.chain.back();
    if (!LeafIsSet(parent, field)) return;
    const Reflection* reflection = parent.GetReflection();
    if (!info.key.not_built_reason().empty() && !IsDefault(parent, info)) {
      Error(path, info.key.not_built_reason(), absl::StrCat("leave ", path, " out"));
      return;
    }
    if (field->is_repeated() && reflection->FieldSize(parent, field) > kMaxListEntries) {
      Error(path, absl::StrCat("has ", reflection->FieldSize(parent, field), " entries"),
            absl::StrCat("at most ", kMaxListEntries));
      return;
    }
    const size_t before = problems_.size();
    switch (info.type) {
      case KeyType::kText:
        CheckText(reflection->GetString(parent, field), info, path);
        break;
      case KeyType::kTextList:
        // Five bad entries say enough, and leave room for the other keys' problems.
        for (int i = 0; i < reflection->FieldSize(parent, field) &&
                        problems_.size() < before + kMaxProblemsPerList;
             ++i) {
          CheckText(reflection->GetRepeatedString(parent, field, i), info, path);
        }
        break;
      case KeyType::kTextMap:
      case KeyType::kWholeMap:
      case KeyType::kNumberMap:
        for (int i = 0; i < reflection->FieldSize(parent, field) &&
                        problems_.size() < before + kMaxProblemsPerList;
             ++i) {
          CheckEntry(reflection->GetRepeatedMessage(parent, field, i), info, path);
        }
        break;
      case KeyType::kWholeOrAuto:
      case KeyType::kNumberOrAuto:
      case KeyType::kBoolOrAuto: {
        const Message& holder = reflection->GetMessage(parent, field);
        const FieldDescriptor* automatic = holder.GetDescriptor()->FindFieldByName("auto");
        if (holder.GetReflection()->HasField(holder, automatic)) {
          if (!holder.GetReflection()->GetBool(holder, automatic)) {
            Error(path, "has auto set to false", AllowedText(info));
          }
          break;
        }
        CheckPlain(holder, holder.GetDescriptor()->FindFieldByName("value"), info, path);
        break;
      }
      case KeyType::kSources:
        break;  // its elements are keys of their own
      default:
        CheckPlain(parent, field, info, path);
    }
  }

  void CheckPlain(const Message& message, const FieldDescriptor* field, const KeyInfo& info,
                  const std::string& path) {
    const Reflection* reflection = message.GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_DOUBLE:
        CheckNumber(reflection->GetDouble(message, field), info, path);
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        CheckNumber(static_cast<double>(reflection->GetInt64(message, field)), info, path);
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        CheckNumber(static_cast<double>(reflection->GetUInt64(message, field)), info, path);
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        CheckBuilt(reflection->GetBool(message, field) ? "true" : "false", info, path);
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        CheckText(reflection->GetString(message, field), info, path);
        break;
      default:
        break;
    }
  }

  void CheckNumber(double value, const KeyInfo& info, const std::string& path) {
    if (!std::isfinite(value)) {
      Error(path, absl::StrCat(Number(value), " is not a finite number"), AllowedText(info));
      return;
    }
    const v1::Key& key = info.key;
    const bool low =
        key.has_min() && (key.min_exclusive() ? value <= key.min() : value < key.min());
    const bool high = key.has_max() && value > key.max();
    if (!low && !high) return;
    if (path == "devices" && value > 1) {
      Error(path, absl::StrCat(Number(value), ": training on more than one GPU is not built yet"),
            "0, 1 or auto");
      return;
    }
    std::string allowed = AllowedText(info);
    if (path == "learning_rate" && high) {
      allowed = absl::StrCat("did you mean ", LikelyLearningRate(value), "? Allowed: ", allowed);
    }
    Error(path, absl::StrCat(Number(value), low ? " is too small" : " is too large"), allowed);
  }

  // "5" was meant as 5e-5: the digits stay, the exponent is the usual one.
  static std::string LikelyLearningRate(double value) {
    const double mantissa = value / std::pow(10.0, std::floor(std::log10(value)));
    return absl::StrFormat("%.4ge-%d", mantissa, value >= 1 ? 5 : 4);
  }

  void CheckText(const std::string& written, const KeyInfo& info, const std::string& path) {
    const bool roomy = path == "dataset.system_prompt" || path == "source.prompts";
    const size_t cap = roomy ? kMaxLongText : kMaxText;
    if (written.size() > cap) {
      Error(path, absl::StrCat("is ", written.size(), " bytes long"),
            absl::StrCat("at most ", cap, " bytes"));
      return;
    }
    if (written.find('\0') != std::string::npos) {
      Error(path, "holds a NUL character", "text without NUL");
      return;
    }
    if (info.type == KeyType::kTextList && written.empty()) {
      Error(path, "has an empty entry", AllowedText(info));
      return;
    }
    const std::string text = CanonicalText(info.key, written);
    if (info.key.allowed_size() > 0 &&
        std::find(info.key.allowed().begin(), info.key.allowed().end(), text) ==
            info.key.allowed().end()) {
      std::string allowed = AllowedText(info);
      if (const std::string other = RefusedMethod(path, text); !other.empty()) {
        Error(path, other, allowed);
        return;
      }
      const std::string nearest =
          NearestText(text, {info.key.allowed().begin(), info.key.allowed().end()});
      if (!nearest.empty())
        allowed = absl::StrCat("did you mean ", nearest, "? Allowed: ", allowed);
      Error(path, absl::StrCat(Shown(text), " is not allowed"), allowed);
      return;
    }
    CheckBuilt(text, info, path);
  }

  // What is deliberately not built, asked for by its usual name.
  static std::string RefusedMethod(std::string_view path, std::string_view text) {
    if (path != "lora.adapter") return "";
    const std::string lower = absl::AsciiStrToLower(View(text));
    if (lower == "none" || lower == "full") {
      return "full fine-tuning is not offered; the nearest choice is lora with r: 256 and "
             "target_modules: all-linear";
    }
    if (absl::StartsWith(lower, "prefix") || absl::StartsWith(lower, "prompt") ||
        absl::StartsWith(lower, "p_tuning") || absl::StartsWith(lower, "p-tuning")) {
      return absl::StrCat(lower,
                          " is not offered; the nearest choice is lora with a small rank "
                          "(r: 4)");
    }
    return "";
  }

  void CheckBuilt(std::string_view value, const KeyInfo& info, const std::string& path) {
    for (const std::string& entry : info.key.not_built()) {
      const size_t equals = entry.find('=');
      if (std::string_view(entry).substr(0, equals) != value) continue;
      Error(path, absl::StrCat(View(value), ": ", entry.substr(equals + 1)), AllowedText(info));
    }
  }

  void CheckEntry(const Message& entry, const KeyInfo& info, const std::string& path) {
    const FieldDescriptor* name_field = info.chain.back()->message_type()->map_key();
    const FieldDescriptor* value_field = info.chain.back()->message_type()->map_value();
    const std::string name = entry.GetReflection()->GetString(entry, name_field);
    if (name.empty() || name.size() > kMaxText) {
      Error(path, name.empty() ? "has an entry without name" : "has an entry with a name too long",
            AllowedText(info));
      return;
    }
    if (path == "dataset.columns" &&
        std::find(std::begin(kColumns), std::end(kColumns), name) == std::end(kColumns)) {
      const std::vector<std::string> known(std::begin(kColumns), std::end(kColumns));
      const std::string nearest = NearestText(name, known);
      std::string allowed = "one of";
      for (const std::string& column : known) absl::StrAppend(&allowed, " ", column);
      if (!nearest.empty())
        allowed = absl::StrCat("did you mean ", nearest, "? Allowed: ", allowed);
      Error(path, absl::StrCat(Shown(name), " is no canonical column (write canonical: own)"),
            allowed);
    }
    CheckPlain(entry, value_field, info, absl::StrCat(path, ".", name.substr(0, 80)));
  }

  bool IsDefault(const Message& parent, const KeyInfo& info) {
    if (info.key.default_value().empty()) return false;
    const FieldDescriptor* field = info.chain.back();
    const Reflection* reflection = parent.GetReflection();
    double number;
    if (info.type == KeyType::kNumber && absl::SimpleAtod(info.key.default_value(), &number)) {
      return reflection->GetDouble(parent, field) == number;
    }
    return info.type == KeyType::kText &&
           reflection->GetString(parent, field) == info.key.default_value();
  }

  // ---- keys together
  // -----------------------------------------------------------------------------------------------

  void CheckRequired() {
    const std::string& kind = resolved_.kind();
    const v1::Source& source = spec_.source();
    if (kind == "finetune") {
      if (spec_.model_name_or_path().empty()) {
        Error("model_name_or_path", "is required and not set",
              "a model directory, or a name under a model root");
      }
      if (spec_.dataset().path_size() == 0 && spec_.dataset().sources_size() == 0) {
        Error("dataset.path", "is required and not set",
              "a data file under a data root, or upload:SHA256 (see `finetune upload FILE`)");
      }
      if (spec_.dataset().path_size() > 0 && spec_.dataset().sources_size() > 0) {
        Error("dataset.sources", "is set together with dataset.path", "one of the two");
      }
      for (int i = 0; i < spec_.dataset().sources_size() && i < kMaxListEntries; ++i) {
        if (spec_.dataset().sources(i).path().empty()) {
          Error(absl::StrCat("dataset.sources[", i, "].path"), "is required and not set",
                "a data file under a data root, or upload:SHA256");
        }
      }
      return;
    }
    if (kind != "export" && kind != "merge" && kind != "generate") return;
    const bool adapter = source.has_job_id() || source.has_adapter_path();
    if (source.has_job_id() && source.has_adapter_path()) {
      Error("source.adapter_path", "is set together with source.job_id", "one of the two");
    }
    if (!adapter && kind != "generate") {
      Error("source.job_id", absl::StrCat("is required for kind ", kind, " and not set"),
            "a job, or source.adapter_path with model_name_or_path");
    }
    if (!source.has_job_id() && spec_.model_name_or_path().empty()) {
      Error("model_name_or_path", "is required without source.job_id and not set",
            "the base model");
    }
    if (source.has_checkpoint_step() && !source.has_job_id()) {
      Error("source.checkpoint_step", "needs source.job_id", "the job that saved it");
    }
    if (kind == "generate" && source.prompts_size() == 0) {
      Error("source.prompts", "is required for kind generate and not set", "at least one prompt");
    }
  }

  void CheckTogether() {
    if (spec_.has_max_runtime() && ParseDurationSeconds(spec_.max_runtime()) <= 0) {
      Error("max_runtime", absl::StrCat(Shown(spec_.max_runtime()), " is not a length of time"),
            "hours, minutes and seconds as 8h, 30m, 45s or 1h30m");
    }
    if (resolved_.bf16().value() && resolved_.fp16()) {
      Error("fp16", "is true together with bf16", "one of the two");
    }
    const v1::Split& split = resolved_.dataset().split();
    if (split.method() == "file" && split.validation_path().empty()) {
      Error("dataset.split.validation_path", "is required with dataset.split.method: file",
            "a data file under a data root, or upload:SHA256");
    }
    if (split.method() != "file" && split.has_validation_path()) {
      Error("dataset.split.method",
            absl::StrCat(Shown(split.method()), " does not use dataset.split.validation_path"),
            "method: file, or no validation_path");
    }
    const v1::Filters& filters = resolved_.dataset().filters();
    CheckOrder("dataset.filters.min_instruction_chars", filters.min_instruction_chars(),
               "dataset.filters.max_instruction_chars", filters.has_max_instruction_chars(),
               filters.max_instruction_chars());
    CheckOrder("dataset.filters.min_response_chars", filters.min_response_chars(),
               "dataset.filters.max_response_chars", filters.has_max_response_chars(),
               filters.max_response_chars());
  }

  void CheckOrder(std::string_view low_key, int64_t low, std::string_view high_key, bool high_set,
                  int64_t high) {
    if (!high_set || low <= high) return;
    Error(high_key, absl::StrCat(high, " is below ", View(low_key), " ", low), "at least as much");
  }

  // Warnings: legal, but likely not what is wanted.
  void CheckAdvice() {
    if (resolved_.kind() != "finetune") return;
    CheckScale();
    const auto& batch = resolved_.per_device_train_batch_size();
    const auto& accumulation = resolved_.gradient_accumulation_steps();
    // An explicit number of each; the product of two hostile ones may overflow, so it is taken in
    // double.
    if (batch.value() > 0 && accumulation.value() > 0) {
      const double rows =
          static_cast<double>(batch.value()) * static_cast<double>(accumulation.value());
      if (rows < 8) {
        Warn("gradient_accumulation_steps",
             absl::StrCat("the effective batch is ", Number(rows), " rows (", batch.value(), " × ",
                          accumulation.value(), "), so updates are noisy"),
             absl::StrCat("gradient_accumulation_steps: ", (8 + batch.value() - 1) / batch.value(),
                          " or auto"));
      }
    }
    const int64_t save = resolved_.save_steps().value();
    const int64_t eval = resolved_.eval_steps().value();
    if (resolved_.load_best_model_at_end() && save > 0 && eval > 0 && save % eval != 0 &&
        resolved_.save_strategy() == "steps" && resolved_.eval_strategy() == "steps") {
      Warn("save_steps",
           absl::StrCat(save, " is no multiple of eval_steps ", eval,
                        "; the best evaluation saves by itself, so nothing is lost"),
           absl::StrCat("save_steps: ", std::max<int64_t>(1, (save + eval / 2) / eval) * eval));
    }
    if (resolved_.eval_strategy() == "no" && spec_.has_early_stopping_patience() &&
        spec_.early_stopping_patience() > 0) {
      Warn("early_stopping_patience", "has no effect with eval_strategy: no",
           "eval_strategy: steps");
    }
    if (resolved_.max_steps() > 0 && resolved_.has_warmup_steps() &&
        resolved_.warmup_steps() >= resolved_.max_steps()) {
      Warn("warmup_steps",
           absl::StrCat(resolved_.warmup_steps(), " reaches max_steps ", resolved_.max_steps(),
                        "; the learning rate never gets to its peak"),
           absl::StrCat("warmup_steps: ", resolved_.max_steps() / 10));
    }
    if (resolved_.dataset().split().method() == "random" &&
        resolved_.dataset().split().validation_fraction() == 0 &&
        resolved_.eval_strategy() != "no") {
      Warn("dataset.split.validation_fraction",
           "0 leaves nothing to evaluate on: no evaluation, no early stopping, no verdict", "0.1");
    }
  }

  void CheckScale() {
    const v1::Lora& lora = resolved_.lora();
    const double r = static_cast<double>(lora.r().value());
    const double alpha = lora.alpha().auto_() ? 2 * r : lora.alpha().value();
    const double rate = resolved_.learning_rate();
    if (!(r >= 1 && r <= 512) || !(alpha > 0) || !std::isfinite(alpha) || !(rate > 0)) return;
    const bool plain = lora.lora_alpha_scaling() && !lora.use_rslora();
    const double ratio = alpha / r;
    if (plain && (ratio < 1 || ratio > 4)) {
      Warn("lora.alpha",
           absl::StrCat("alpha/r is ", Number(ratio), " (", Number(alpha), "/", Number(r),
                        "), outside the usual 1…4"),
           absl::StrCat("lora.alpha: ", Number(2 * r), ", or auto"));
    }
    const double scale = !lora.lora_alpha_scaling() ? alpha
                         : lora.use_rslora()        ? alpha / std::sqrt(r)
                                                    : ratio;
    const double product = rate * scale;
    if (product >= kBandLow && product <= kBandHigh) return;
    if (rate < 1e-6 || rate > 1e-2) return;  // an error of its own
    const double target = product < kBandLow ? kBandLow : kBandHigh;
    Warn("learning_rate",
         absl::StrCat("learning_rate × LoRA scale is ", Number(product), " (", Number(rate), " × ",
                      Number(scale), "), ", product < kBandLow ? "below" : "above", " the band ",
                      Number(kBandLow), "…", Number(kBandHigh),
                      "; at alpha/r = 2 it equals learning_rate: ", Number(product / 2)),
         absl::StrCat("learning_rate: ", Number(target / scale)));
  }

  const v1::JobSpec& spec_;
  const v1::JobSpec resolved_;
  std::vector<v1::Problem> problems_;
};

}  // namespace

std::vector<v1::Problem> ValidateSpec(const v1::JobSpec& spec) { return Validator(spec).Run(); }

bool HasErrors(const std::vector<v1::Problem>& problems) {
  return std::any_of(problems.begin(), problems.end(), [](const v1::Problem& problem) {
    return problem.severity() == v1::Problem::ERROR;
  });
}

double ParseDurationSeconds(std::string_view text) {
  double total = 0;
  char last = 'z';
  while (!text.empty()) {
    const size_t unit = text.find_first_not_of("0123456789.");
    double amount;
    if (unit == 0 || unit == std::string_view::npos ||
        !absl::SimpleAtod(View(text.substr(0, unit)), &amount)) {
      return -1;
    }
    // h before m before s, each at most once ("h" < "m" < "s").
    const char letter = text[unit];
    if (letter != 'h' && letter != 'm' && letter != 's') return -1;
    if (last != 'z' && letter <= last) return -1;
    last = letter;
    total += amount * (letter == 'h' ? 3600 : letter == 'm' ? 60 : 1);
    text.remove_prefix(unit + 1);
  }
  return last == 'z' || !std::isfinite(total) || total > 1e9 ? -1 : total;
}

}  // namespace finetuned
