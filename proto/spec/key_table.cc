#include "proto/spec/key_table.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "finetuned/v1/job_spec.pb.h"
#include "google/protobuf/descriptor.h"
#include "proto/spec/spec_internal.h"

namespace finetuned {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

bool IsOrAuto(const Descriptor* message) {
  return message == v1::IntOrAuto::descriptor() || message == v1::DoubleOrAuto::descriptor() ||
         message == v1::BoolOrAuto::descriptor();
}

KeyType TypeOf(const FieldDescriptor* field) {
  if (field->is_map()) {
    switch (field->message_type()->map_value()->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return KeyType::kTextMap;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return KeyType::kNumberMap;
      default:
        return KeyType::kWholeMap;
    }
  }
  if (field->is_repeated()) {
    return field->cpp_type() == FieldDescriptor::CPPTYPE_STRING ? KeyType::kTextList
                                                                : KeyType::kSources;
  }
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return KeyType::kText;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return KeyType::kNumber;
    case FieldDescriptor::CPPTYPE_BOOL:
      return KeyType::kBool;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      if (field->message_type() == v1::IntOrAuto::descriptor()) return KeyType::kWholeOrAuto;
      return field->message_type() == v1::DoubleOrAuto::descriptor() ? KeyType::kNumberOrAuto
                                                                     : KeyType::kBoolOrAuto;
    default:
      return KeyType::kWhole;
  }
}

void Walk(const Descriptor* message, const std::string& prefix,
          std::vector<const FieldDescriptor*> chain, bool in_list, std::vector<KeyInfo>* keys) {
  for (int i = 0; i < message->field_count(); ++i) {
    const FieldDescriptor* field = message->field(i);
    const std::string path = absl::StrCat(prefix, prefix.empty() ? "" : ".", field->name());
    std::vector<const FieldDescriptor*> own = chain;
    own.push_back(field);
    const bool message_field =
        field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_map();
    if (message_field && !field->is_repeated() && !IsOrAuto(field->message_type())) {
      Walk(field->message_type(), path, own, in_list, keys);
      continue;
    }
    keys->push_back({path, TypeOf(field), field->options().GetExtension(v1::key), own, in_list});
    if (message_field && field->is_repeated()) {
      Walk(field->message_type(), path + "[]", {}, true, keys);
    }
  }
}

struct Table {
  std::vector<KeyInfo> keys;
  std::map<std::string, const KeyInfo*, std::less<>> by_name;       // paths and aliases
  std::map<std::string, const KeyInfo*, std::less<>> by_last_name;  // null: ambiguous
  std::set<std::string, std::less<>> blocks;
};

const Table& GetTable() {
  static const Table* const table = [] {
    auto* made = new Table;
    Walk(v1::JobSpec::descriptor(), "", {}, false, &made->keys);
    for (const KeyInfo& info : made->keys) {
      made->by_name[info.path] = &info;
      if (info.in_list) continue;
      const size_t dot = info.path.rfind('.');
      const std::string block = dot == std::string::npos ? "" : info.path.substr(0, dot);
      auto [last, inserted] = made->by_last_name.emplace(info.path.substr(dot + 1), &info);
      if (!inserted) last->second = nullptr;
      for (size_t end = info.path.find('.'); end != std::string::npos;
           end = info.path.find('.', end + 1)) {
        made->blocks.insert(info.path.substr(0, end));
      }
      for (const std::string& alias : info.key.aliases()) {
        made->by_name.emplace(alias, &info);
        if (!block.empty()) made->by_name.emplace(absl::StrCat(block, ".", alias), &info);
      }
    }
    return made;
  }();
  return *table;
}

// Levenshtein distance, at most `limit` + 1.
size_t EditDistance(std::string_view a, std::string_view b, size_t limit) {
  if (a.size() > b.size() + limit || b.size() > a.size() + limit) return limit + 1;
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

size_t Reach(std::string_view text) { return std::max<size_t>(2, text.size() / 3); }

// TrainingArguments, BitsAndBytesConfig and launcher keys that change nothing about the result
// here.
constexpr std::array kNoEffect = {"report_to",
                                  "dataloader_num_workers",
                                  "dataloader_pin_memory",
                                  "dataloader_drop_last",
                                  "dataloader_prefetch_factor",
                                  "dataloader_persistent_workers",
                                  "device_map",
                                  "logging_dir",
                                  "remove_unused_columns",
                                  "torch_compile",
                                  "tf32",
                                  "overwrite_output_dir",
                                  "do_train",
                                  "do_eval",
                                  "do_predict",
                                  "push_to_hub",
                                  "logging_strategy",
                                  "logging_first_step",
                                  "log_level",
                                  "disable_tqdm",
                                  "local_rank",
                                  "use_cpu",
                                  "no_cuda",
                                  "group_by_length",
                                  "length_column_name",
                                  "save_safetensors",
                                  "save_only_model",
                                  "load_in_8bit_fp32_cpu_offload",
                                  "low_cpu_mem_usage",
                                  "attn_implementation",
                                  "use_cache",
                                  "gradient_checkpointing_kwargs",
                                  "lr_scheduler_kwargs",
                                  "optim_args",
                                  "deepspeed",
                                  "fsdp",
                                  "fsdp_config",
                                  "accelerator_config",
                                  "ignore_data_skip",
                                  "data_seed",
                                  "label_smoothing_factor",
                                  "label_names",
                                  "include_tokens_per_second",
                                  "include_num_input_tokens_seen",
                                  "auto_find_batch_size",
                                  "torch_empty_cache_steps",
                                  "fp16_opt_level",
                                  "half_precision_backend",
                                  "bf16_full_eval",
                                  "fp16_full_eval",
                                  "eval_accumulation_steps",
                                  "eval_delay",
                                  "eval_on_start",
                                  "resume_from_checkpoint",
                                  "run_id",
                                  "skip_memory_metrics",
                                  "past_index",
                                  "dataset_text_field",
                                  "dataset_num_proc",
                                  "use_liger_kernel"};

}  // namespace

const std::vector<KeyInfo>& AllKeys() { return GetTable().keys; }

const KeyInfo* FindKey(std::string_view path) {
  const auto found = GetTable().by_name.find(path);
  return found == GetTable().by_name.end() ? nullptr : found->second;
}

const KeyInfo* FindKeyByLastName(std::string_view name) {
  const auto found = GetTable().by_last_name.find(name);
  return found == GetTable().by_last_name.end() ? nullptr : found->second;
}

bool IsBlock(std::string_view path) { return GetTable().blocks.contains(path); }

std::string NearestKey(std::string_view path) {
  std::string best;
  if (path.size() > 200) return best;
  size_t best_distance = Reach(path) + 1;
  const auto consider = [&](std::string_view candidate, const std::string& answer) {
    const size_t distance = EditDistance(path, candidate, best_distance);
    if (distance < best_distance) {
      best_distance = distance;
      best = answer;
    }
  };
  for (const auto& [name, info] : GetTable().by_name) consider(name, info->path);
  for (const std::string& block : GetTable().blocks) consider(block, block);
  // A wrong block around a right name ("training.learning_rate") or a name without its block
  // ("alpha").
  const std::string_view last = path.substr(path.rfind('.') + 1);
  for (const auto& [name, info] : GetTable().by_last_name) {
    if (info == nullptr) continue;
    if (name == last && best_distance > 0) {
      best_distance = 0;
      best = info->path;
    }
    if (last.size() > 3) consider(name, info->path);
  }
  return best;
}

std::string NearestText(std::string_view text, const std::vector<std::string>& candidates) {
  std::string best;
  if (text.size() > 200) return best;
  const std::string lower = absl::AsciiStrToLower(View(text));
  size_t best_distance = Reach(text) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(lower, absl::AsciiStrToLower(candidate), best_distance);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string TypeName(KeyType type) {
  switch (type) {
    case KeyType::kText:
      return "text";
    case KeyType::kWhole:
      return "whole number";
    case KeyType::kNumber:
      return "number";
    case KeyType::kBool:
      return "true or false";
    case KeyType::kWholeOrAuto:
      return "whole number or auto";
    case KeyType::kNumberOrAuto:
      return "number or auto";
    case KeyType::kBoolOrAuto:
      return "true, false or auto";
    case KeyType::kTextList:
      return "text or a list of texts";
    case KeyType::kTextMap:
      return "map of name: text";
    case KeyType::kWholeMap:
      return "map of name: whole number";
    case KeyType::kNumberMap:
      return "map of name: number";
    case KeyType::kSources:
      return "list of {path, weight, limit, format, shape}";
  }
  return "";
}

std::string AllowedText(const KeyInfo& info) {
  std::string text;
  if (info.key.allowed_size() > 0) {
    std::vector<std::string> built;
    for (const std::string& value : info.key.allowed()) {
      const bool refused = std::any_of(
          info.key.not_built().begin(), info.key.not_built().end(),
          [&](const std::string& entry) { return absl::StartsWith(entry, value + "="); });
      if (!refused) built.push_back(value);
    }
    text = built.size() == 1 ? built[0] : absl::StrCat("one of ", absl::StrJoin(built, ", "));
    if (info.type == KeyType::kTextList) text += ", or a list of them";
  } else {
    text = TypeName(info.type);
  }
  if (info.key.has_min() && info.key.has_max()) {
    absl::StrAppend(&text, ", ", info.key.min_exclusive() ? "above " : "", info.key.min(), "…",
                    info.key.max());
  } else if (info.key.has_min()) {
    absl::StrAppend(&text, info.key.min_exclusive() ? ", above " : ", at least ", info.key.min());
  }
  if (!info.key.unit().empty()) absl::StrAppend(&text, " (", info.key.unit(), ")");
  if (!info.key.default_value().empty()) {
    absl::StrAppend(&text, "; default ", info.key.default_value());
  }
  return text;
}

std::optional<std::string> WithoutEffect(std::string_view path) {
  if (path == "output_dir") {
    return "output_dir is ignored: a job's artifacts have one place; take them home with "
           "`finetune download JOB --to DIR`";
  }
  if (absl::StartsWith(View(path), "ddp_") || absl::StartsWith(View(path), "hub_") ||
      std::find(kNoEffect.begin(), kNoEffect.end(), path) != kNoEffect.end()) {
    return absl::StrCat(View(path), " has no effect here");
  }
  return std::nullopt;
}

std::optional<std::string> RefusedKey(std::string_view path, std::string_view value) {
  const std::string_view name = absl::StartsWith(View(path), "quantization.")
                                    ? path.substr(sizeof("quantization.") - 1)
                                    : path;
  const std::string lower = absl::AsciiStrToLower(View(value));
  const bool off = lower == "false" || lower == "no" || lower == "off" || lower.empty();
  if (name == "load_in_8bit" || name == "llm_int8_threshold") {
    if (off) return "";
    return "8-bit base weights are not offered; the nearest choices are quantization.load_in_4bit: "
           "true (half the memory) or false (16 bit)";
  }
  if (path == "trust_remote_code") {
    if (off) return "";
    return "code that comes with a model is never run; leave trust_remote_code out";
  }
  if (path == "finetuning_type" || path == "peft_type" || path == "use_peft" ||
      path == "use_lora") {
    const bool lora = lower == "lora" || lower == "true" || lower == "yes";
    if (lora) return "";
    return absl::StrCat("only adapters are trained here (", View(path),
                        ": lora); for something close to full fine-tuning use lora.r: 256 with "
                        "lora.target_modules: all-linear");
  }
  if (absl::StrContains(View(path), "prefix_tuning") ||
      absl::StrContains(View(path), "prompt_tuning") || path == "num_virtual_tokens" ||
      path == "full_finetuning") {
    if (off && path == "full_finetuning") return "";
    return absl::StrCat(View(path),
                        " is not offered; the nearest choice is lora with a small rank "
                        "(lora.r: 4)");
  }
  return std::nullopt;
}

}  // namespace finetuned
