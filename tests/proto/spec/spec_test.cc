// Mapping between text and JobSpec, aliases, nearest keys, the reference page, and hostile values.
#include "proto/spec/spec.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "proto/base/file_util.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

v1::JobSpec With(std::string_view key, std::string_view value) {
  v1::JobSpec spec;
  const absl::Status status = SetKey(&spec, key, value);
  EXPECT_TRUE(status.ok()) << key << ": " << status;
  return spec;
}

TEST(SetKey, EveryTypeAndAlias) {
  EXPECT_EQ(With("learning_rate", "1e-4").learning_rate(), 1e-4);
  EXPECT_EQ(With("lora.r", "8").lora().r().value(), 8);
  EXPECT_EQ(With("lora_r", "8").lora().r().value(), 8);
  EXPECT_EQ(With("lora.lora_r", "8").lora().r().value(), 8);
  EXPECT_EQ(With("r", "8").lora().r().value(), 8);
  EXPECT_TRUE(With("lora.r", "auto").lora().r().auto_());
  EXPECT_TRUE(With("load_in_4bit", "yes").quantization().load_in_4bit().value());
  EXPECT_EQ(With("optim", "adamw_torch").optimizer(), "adamw");
  EXPECT_EQ(With("init_lora_weights", "true").lora().init_lora_weights(), "default");
  EXPECT_EQ(With("export.gguf_types", "[Q8_0, f16]").export_().gguf_types(0), "q8_0");
  EXPECT_EQ(With("train_file", "a, b.jsonl").dataset().path(0), "a, b.jsonl");
  EXPECT_EQ(With("dataset.path", "[a.jsonl, \"b, c.jsonl\"]").dataset().path(1), "b, c.jsonl");
  EXPECT_EQ(With("lora.rank_pattern.q_proj", "4").lora().rank_pattern().at("q_proj"), 4);
  EXPECT_EQ(With("dataset.columns", "{response: answer}").dataset().columns().at("response"),
            "answer");
  EXPECT_EQ(
      With("dataset.sources", "[{path: a.jsonl, limit: 5}, b.jsonl]").dataset().sources(1).path(),
      "b.jsonl");
  EXPECT_EQ(With("early_stopping_patience", "null").early_stopping_patience(), 0);
  EXPECT_FALSE(With("max_steps", "null").has_max_steps());
  EXPECT_EQ(With("eval_strategy", "no").eval_strategy(), "no");
  EXPECT_EQ(With("max_steps", "1e3").max_steps(), 1000);
  EXPECT_EQ(With("seed", "18446744073709551615").seed(), 18446744073709551615u);
}

TEST(SetKey, ErrorsNameKeyValueAllowedAndNearest) {
  v1::JobSpec spec;
  spec.set_learning_rate(1e-4);
  const v1::JobSpec before = spec;
  EXPECT_THAT(Message(SetKey(&spec, "learning_rte", "1")),
              HasSubstr("did you mean learning_rate?"));
  EXPECT_THAT(Message(SetKey(&spec, "training.learning_rate", "1")),
              HasSubstr("did you mean learning_rate?"));
  EXPECT_THAT(
      Message(SetKey(&spec, "lora.r", "big")),
      HasSubstr(
          "lora.r: 'big' is not a whole number; allowed: whole number or auto, 1…512; default 16"));
  EXPECT_THAT(Message(SetKey(&spec, "learning_rate", "nan")), HasSubstr("not a finite number"));
  EXPECT_THAT(Message(SetKey(&spec, "packing", "maybe")), HasSubstr("neither true nor false"));
  EXPECT_THAT(Message(SetKey(&spec, "seed", "-1")), HasSubstr("from 0 up"));
  EXPECT_THAT(Message(SetKey(&spec, "max_steps", "99999999999999999999")), HasSubstr("that fits"));
  EXPECT_THAT(Message(SetKey(&spec, "max_grad_norm", "null")), HasSubstr("null has no meaning"));
  EXPECT_THAT(Message(SetKey(&spec, "dataset.path", "[a, b")), HasSubstr("closing ] is missing"));
  EXPECT_THAT(Message(SetKey(&spec, "load_in_8bit", "true")), HasSubstr("load_in_4bit"));
  EXPECT_THAT(Message(SetKey(&spec, "lora", "false")), HasSubstr("full fine-tuning"));
  EXPECT_THAT(Message(SetKey(&spec, "prompt_tuning", "x")), HasSubstr("nearest choice"));
  EXPECT_THAT(Message(SetKey(&spec, "trust_remote_code", "true")), HasSubstr("never run"));
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(spec, before));
  EXPECT_TRUE(SetKey(&spec, "report_to", "wandb").ok());  // a warning where there is a place for it
  EXPECT_TRUE(WithoutEffect("hub_model_id").has_value());
  EXPECT_FALSE(WithoutEffect("learning_rate").has_value());
}

TEST(KeyTable, EveryAliasLeadsToItsKey) {
  for (const KeyInfo& info : AllKeys()) {
    for (const std::string& alias : info.key.aliases()) {
      const KeyInfo* found = FindKey(alias);
      ASSERT_NE(found, nullptr) << alias;
      EXPECT_EQ(found->path, info.path) << alias;
    }
  }
}

TEST(KeyTable, AliasesTheReferencePromises) {
  const std::pair<const char*, const char*> promised[] = {
      {"train_file", "dataset.path"},
      {"train_data_path", "dataset.path"},
      {"dataset_path", "dataset.path"},
      {"validation_file", "dataset.split.validation_path"},
      {"validation_split", "dataset.split.validation_fraction"},
      {"max_length", "max_seq_length"},
      {"model_max_length", "max_seq_length"},
      {"optim", "optimizer"},
      {"evaluation_strategy", "eval_strategy"},
      {"lora_alpha", "lora.alpha"},
      {"lora_dropout", "lora.dropout"},
      {"micro_batch_size", "per_device_train_batch_size"},
      {"num_epochs", "num_train_epochs"},
      {"base_model", "model_name_or_path"},
      {"bnb_4bit_quant_type", "quantization.bnb_4bit_quant_type"},
      {"bnb_4bit_use_double_quant", "quantization.bnb_4bit_use_double_quant"}};
  for (const auto& [alias, path] : promised) {
    const KeyInfo* info = FindKey(alias);
    ASSERT_NE(info, nullptr) << alias;
    EXPECT_EQ(info->path, path);
  }
  for (const char* key : {"report_to", "dataloader_num_workers", "dataloader_pin_memory",
                          "device_map", "ddp_backend", "hub_token", "logging_dir",
                          "remove_unused_columns", "torch_compile", "tf32", "output_dir"}) {
    EXPECT_TRUE(WithoutEffect(key).has_value()) << key;
  }
}

TEST(ApplyTree, AllProblemsAtOnceWithLines) {
  SpecValue tree = SpecValue::Map();
  const auto add = [&](const char* key, const char* text, int line) {
    SpecValue value = SpecValue::Scalar(text);
    value.line = line;
    tree.entries.emplace_back(key, value);
  };
  add("learning_rate", "fast", 1);
  add("lora_rank", "8", 2);
  add("report_to", "wandb", 3);
  add("max_length", "128", 4);
  add("max_seq_length", "256", 5);
  add("dataset", "data.jsonl", 6);
  v1::JobSpec spec;
  const std::vector<MappingProblem> problems = ApplyTree(tree, &spec);
  ASSERT_EQ(problems.size(), 5u);
  EXPECT_EQ(problems[0].line, 1);
  EXPECT_EQ(problems[1].problem.message(), "is not a key of a job");
  EXPECT_EQ(problems[2].problem.severity(), v1::Problem::WARNING);
  EXPECT_THAT(problems[3].problem.message(),
              HasSubstr("as max_length and as max_seq_length (first on line 4)"));
  EXPECT_EQ(problems[4].problem.field(), "dataset");
}

TEST(Tree, ResolvedSpecRoundTrips) {
  v1::JobSpec spec;
  ASSERT_TRUE(SetKey(&spec, "model_name_or_path", "m").ok());
  ASSERT_TRUE(SetKey(&spec, "dataset.sources", "[{path: a.jsonl, limit: 5}]").ok());
  ASSERT_TRUE(SetKey(&spec, "lora.alpha_pattern", "{q_proj: 0.1, k_proj: 64}").ok());
  ASSERT_TRUE(SetKey(&spec, "learning_rate", "0.00012345678901234567").ok());
  const v1::JobSpec resolved = ResolveDefaults(spec);
  EXPECT_TRUE(
      google::protobuf::util::MessageDifferencer::Equals(resolved, ResolveDefaults(resolved)));
  v1::JobSpec back;
  EXPECT_TRUE(ApplyTree(SpecToTree(resolved), &back).empty());
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(resolved, ResolveDefaults(back)));
  EXPECT_EQ(SpecFingerprint(resolved), SpecFingerprint(ResolveDefaults(back)));
}

TEST(Fingerprint, DependsOnValuesNotOnTheOrderOfMapEntries) {
  v1::JobSpec a, b;
  for (int i = 0; i < 50; ++i) (*a.mutable_lora()->mutable_rank_pattern())[std::to_string(i)] = 4;
  for (int i = 49; i >= 0; --i) (*b.mutable_lora()->mutable_rank_pattern())[std::to_string(i)] = 4;
  EXPECT_EQ(SpecFingerprint(a), SpecFingerprint(b));
  EXPECT_EQ(SpecFingerprint(a).size(), 64u);
  b.set_learning_rate(1e-4);
  EXPECT_NE(SpecFingerprint(a), SpecFingerprint(b));
}

TEST(ReferencePage, CheckedInPageIsCurrent) {
  const std::string path =
      std::string(std::getenv("FINETUNED_SOURCE_DIR")) + "/deploy/job-reference.md";
  if (std::getenv("FINETUNED_UPDATE") != nullptr) {
    ASSERT_TRUE(WriteFileAtomic(path, JobReferencePage()).ok());
  }
  const absl::StatusOr<std::string> page = ReadFile(path);
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(*page, JobReferencePage()) << "run with FINETUNED_UPDATE=1";
}

TEST(FlowValue, HostileText) {
  EXPECT_FALSE(ParseFlowValue(std::string(100000, '[')).ok());
  EXPECT_FALSE(ParseFlowValue(std::string(2 << 20, 'a')).ok());
  EXPECT_FALSE(ParseFlowValue("{a: 1").ok());
  EXPECT_FALSE(ParseFlowValue("'open").ok());
  EXPECT_FALSE(ParseFlowValue("[a] b").ok());
  EXPECT_EQ(ParseFlowValue("C:\\x, y")->scalar, "C:\\x, y");
  EXPECT_EQ(ParseFlowValue("~")->kind, SpecValue::Kind::kNull);
}

// Random keys and values, mutated from real ones: no crash, and an error leaves the spec as it was.
TEST(SetKey, RandomMutations) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const std::string values[] = {"8",       "auto",        "null",      "[a, b]",   "{a: 1}",
                                "1e-4",    "true",        "-1",        "'x'",      "1e309",
                                "[[[1]]]", "{a: {b: c}}", "upload:00", "\xff\xfe", ""};
  const auto mutate = [&](std::string text) {
    for (int n = random() % 3; n > 0 && !text.empty(); --n) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          text.erase(at, 1);
          break;
        default:
          text.insert(at, 1, "[]{},:.'\"\\ \n"[random() % 12]);
      }
    }
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    const std::string key = mutate(AllKeys()[random() % AllKeys().size()].path);
    const std::string value = mutate(values[random() % std::size(values)]);
    v1::JobSpec spec;
    const absl::Status status = SetKey(&spec, key, value);
    if (!status.ok()) {
      ASSERT_EQ(spec.ByteSizeLong(), 0u) << key << "=" << value;
      ASSERT_FALSE(status.message().empty());
    } else {
      ValidateSpec(spec);
      v1::JobSpec back;
      ApplyTree(SpecToTree(ResolveDefaults(spec)), &back);
    }
  }
}

}  // namespace
}  // namespace finetuned
