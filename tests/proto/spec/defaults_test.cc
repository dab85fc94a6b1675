// Every key and default of the product's job reference, written down a second time by hand-checked
// copy, so that a changed option in job_spec.proto cannot change a default unnoticed. "" is null
// (or an empty list or map).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "proto/spec/spec.h"

namespace finetuned {
namespace {

struct Fact {
  const char* path;
  const char* value;
};

constexpr Fact kFacts[] = {
    {"kind", "finetune"},
    {"model_name_or_path", ""},
    {"run_name", ""},
    {"preset", ""},
    {"seed", "42"},
    {"max_runtime", ""},
    {"devices", "1"},
    {"on_memory_pressure", "same_result"},
    {"memory_fraction", "0.9"},
    {"deterministic", "true"},
    {"dataset.path", ""},
    {"dataset.format", "auto"},
    {"dataset.shape", "auto"},
    {"dataset.columns", ""},
    {"dataset.weight", "1.0"},
    {"dataset.limit", ""},
    {"dataset.encoding", "auto"},
    {"dataset.sources", ""},
    {"dataset.chat_template", "auto"},
    {"dataset.system_prompt", ""},
    {"dataset.train_on_inputs", "false"},
    {"dataset.added_tokens", ""},
    {"dataset.max_bad_fraction", "0.5"},
    {"dataset.filters.exact_duplicates", "true"},
    {"dataset.filters.near_duplicates", "false"},
    {"dataset.filters.min_instruction_chars", "1"},
    {"dataset.filters.max_instruction_chars", ""},
    {"dataset.filters.min_response_chars", "1"},
    {"dataset.filters.max_response_chars", ""},
    {"dataset.filters.min_response_tokens", "1"},
    {"dataset.filters.min_quality_score", "0.0"},
    {"dataset.filters.encoding_damage", "true"},
    {"dataset.filters.repetition", "true"},
    {"dataset.filters.unfinished_responses", "false"},
    {"dataset.filters.language_mismatch", "false"},
    {"dataset.filters.blocked_words", ""},
    {"dataset.length.policy", "reject"},
    {"dataset.length.drop_oldest_turns", "true"},
    {"dataset.length.sentence_boundary_tokens", "32"},
    {"dataset.split.validation_fraction", "0.1"},
    {"dataset.split.method", "random"},
    {"dataset.split.validation_path", ""},
    {"dataset.split.stratify_by", ""},
    {"dataset.split.group_by", "conversation_id"},
    {"dataset.split.seed", ""},
    {"max_seq_length", "2048"},
    {"packing", "true"},
    {"train_samples", ""},
    {"quantization.load_in_4bit", "auto"},
    {"quantization.bnb_4bit_quant_type", "nf4"},
    {"quantization.bnb_4bit_compute_dtype", "auto"},
    {"quantization.bnb_4bit_use_double_quant", "true"},
    {"quantization.bnb_4bit_quant_storage", "uint8"},
    {"lora.adapter", "lora"},
    {"lora.r", "16"},
    {"lora.alpha", "32"},
    {"lora.dropout", "0.0"},
    {"lora.target_modules", "auto"},
    {"lora.exclude_modules", ""},
    {"lora.max_modules", ""},
    {"lora.rank_pattern", ""},
    {"lora.alpha_pattern", ""},
    {"lora.bias", "none"},
    {"lora.init_lora_weights", "default"},
    {"lora.lora_alpha_scaling", "true"},
    {"lora.use_rslora", "false"},
    {"lora.use_dora", "false"},
    {"lora.lora_plus_ratio", ""},
    {"lora.modules_to_save", ""},
    {"lora.task_type", "auto"},
    {"lora.resume_from_adapter", ""},
    {"learning_rate", "2e-4"},
    {"lr_scheduler_type", "cosine"},
    {"min_lr_ratio", "0.0"},
    {"warmup_ratio", "0.03"},
    {"warmup_steps", ""},
    {"num_train_epochs", "3"},
    {"max_steps", ""},
    {"per_device_train_batch_size", "auto"},
    {"per_device_eval_batch_size", "auto"},
    {"gradient_accumulation_steps", "auto"},
    {"optimizer", "adamw"},
    {"weight_decay", "0.0"},
    {"adam_beta1", "0.9"},
    {"adam_beta2", "0.999"},
    {"adam_epsilon", "1e-8"},
    {"max_grad_norm", "1.0"},
    {"neftune_noise_alpha", ""},
    {"gradient_checkpointing", "auto"},
    {"bf16", "auto"},
    {"fp16", "false"},
    {"logging_steps", "10"},
    {"eval_strategy", "steps"},
    {"eval_steps", "auto"},
    {"save_strategy", "steps"},
    {"save_steps", "auto"},
    {"save_total_limit", "3"},
    {"load_best_model_at_end", "true"},
    {"metric_for_best_model", "eval_loss"},
    {"greater_is_better", "auto"},
    {"early_stopping_patience", "3"},
    {"early_stopping_threshold", "0.001"},
    {"stability.enabled", "true"},
    {"evaluation.baseline", "true"},
    {"evaluation.max_eval_samples", "500"},
    {"evaluation.budget_fraction", "0.15"},
    {"evaluation.timeout", ""},
    {"evaluation.generate_samples", "8"},
    {"evaluation.generation.max_new_tokens", "512"},
    {"evaluation.generation.temperature", "0.0"},
    {"evaluation.generation.top_p", "1.0"},
    {"evaluation.generation.top_k", "0"},
    {"evaluation.generation.repetition_penalty", "1.0"},
    {"evaluation.generation.num_samples_per_prompt", "1"},
    {"evaluation.metrics", "auto"},
    {"evaluation.forgetting_path", ""},
    {"evaluation.require", ""},
    {"export.formats", "adapter"},
    {"export.merged_dtype", "bfloat16"},
    {"export.merge_base", "full_precision"},
    {"export.gguf_types", "q8_0"},
    {"export.onnx_types", "fp32"},
    {"export.archive", "false"},
    {"export.verify_command", ""},
    {"export.keep_checkpoints", "best"},
};

// Keys beyond the reference: inputs of the kinds export, merge and generate, and the fields of one
// source in a list.
bool Extra(const std::string& path) {
  return path.rfind("source.", 0) == 0 || path.rfind("dataset.sources[].", 0) == 0;
}

TEST(Defaults, EveryKeyOfTheReferenceHasItsDefault) {
  for (const Fact& fact : kFacts) {
    const KeyInfo* info = FindKey(fact.path);
    ASSERT_NE(info, nullptr) << fact.path;
    EXPECT_EQ(info->path, fact.path);
    EXPECT_EQ(info->key.default_value(), fact.value) << fact.path;
    EXPECT_FALSE(info->key.help().empty()) << fact.path;
  }
}

TEST(Defaults, NoKeyBeyondTheReference) {
  std::set<std::string> known;
  for (const Fact& fact : kFacts) known.insert(fact.path);
  for (const KeyInfo& info : AllKeys()) {
    EXPECT_TRUE(Extra(info.path) || known.contains(info.path)) << info.path;
  }
}

TEST(Defaults, ResolvedSpecHoldsEachDefaultAndNothingForNull) {
  const SpecValue tree = SpecToTree(ResolveDefaults({}));
  for (const Fact& fact : kFacts) {
    const SpecValue* at = &tree;
    std::string rest = fact.path;
    while (at != nullptr && !rest.empty()) {
      const std::string name = rest.substr(0, rest.find('.'));
      rest = name.size() == rest.size() ? "" : rest.substr(name.size() + 1);
      const SpecValue* below = nullptr;
      for (const auto& [key, value] : at->entries) {
        if (key == name) below = &value;
      }
      at = below;
    }
    if (std::string(fact.value).empty()) {
      EXPECT_EQ(at, nullptr) << fact.path;
      continue;
    }
    ASSERT_NE(at, nullptr) << fact.path;
    const std::string text =
        at->kind == SpecValue::Kind::kList ? at->items.at(0).scalar : at->scalar;
    char* end = nullptr;
    const double number = std::strtod(fact.value, &end);
    if (*end == '\0') {
      EXPECT_EQ(std::strtod(text.c_str(), nullptr), number) << fact.path;
    } else {
      EXPECT_EQ(text, fact.value) << fact.path;
    }
  }
}

}  // namespace
}  // namespace finetuned
