#include "client/yaml_spec.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <random>

namespace finetuned {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

constexpr char kJob[] = R"(# a job
model_name_or_path: smol
train_file: [a.jsonl, "b: c.jsonl"]
learning_rate: 1e-4
eval_strategy: no
early_stopping_patience: null
max_steps: null
lora:
  r: auto
  lora_alpha: 64
  target_modules: q_proj
  rank_pattern: {q_proj: 4}
dataset:
  columns:
    response: answer
report_to: wandb
output_dir: out
)";

std::string ErrorOf(std::string_view text) {
  const auto parsed = ParseYaml(text);
  EXPECT_FALSE(parsed.ok());
  return std::string(parsed.status().message());
}

TEST(JobFile, ListsSingleValuesAliasesAutoAndNull) {
  const absl::StatusOr<JobFile> file = ParseJobFile(kJob);
  ASSERT_TRUE(file.ok()) << file.status();
  const v1::JobSpec& spec = file->spec;
  EXPECT_EQ(spec.dataset().path_size(), 2);
  EXPECT_EQ(spec.dataset().path(1), "b: c.jsonl");
  EXPECT_EQ(spec.learning_rate(), 1e-4);
  EXPECT_EQ(spec.eval_strategy(), "no");
  EXPECT_EQ(spec.early_stopping_patience(), 0);
  EXPECT_TRUE(spec.has_early_stopping_patience());
  EXPECT_FALSE(spec.has_max_steps());
  EXPECT_TRUE(spec.lora().r().auto_());
  EXPECT_EQ(spec.lora().alpha().value(), 64);
  EXPECT_EQ(spec.lora().target_modules(0), "q_proj");
  EXPECT_EQ(spec.lora().rank_pattern().at("q_proj"), 4);
  EXPECT_EQ(spec.dataset().columns().at("response"), "answer");
  ASSERT_EQ(file->problems.size(), 2u);  // report_to and output_dir: warnings
  EXPECT_EQ(file->problems[0].problem.severity(), v1::Problem::WARNING);
  EXPECT_EQ(file->problems[0].line, 16);
  EXPECT_EQ(file->lines.at("learning_rate"), 4);
  EXPECT_EQ(file->lines.at("lora.alpha"), 10);
  EXPECT_EQ(file->lines.at("dataset.path"), 3);
}

TEST(JobFile, UnknownDuplicateAndMistypedKeysWithLines) {
  const absl::StatusOr<JobFile> file = ParseJobFile(
      "learning_rte: 1\nlora:\n  rr: 8\nseed: 1\nseed: 2\npacking: perhaps\nlora_r: [1]\n"
      "dataset:\n  columns: {response: a, response: b}\n");
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(file->problems.size(), 6u);
  EXPECT_EQ(file->problems[0].line, 1);
  EXPECT_THAT(file->problems[0].problem.allowed(), HasSubstr("did you mean learning_rate?"));
  EXPECT_EQ(file->problems[1].line, 3);
  EXPECT_EQ(file->problems[1].problem.field(), "lora.rr");
  EXPECT_THAT(file->problems[2].problem.message(), HasSubstr("twice (first on line 4)"));
  EXPECT_EQ(file->problems[2].line, 5);
  EXPECT_THAT(file->problems[3].problem.message(),
              HasSubstr("'perhaps' is neither true nor false"));
  EXPECT_THAT(file->problems[4].problem.message(), HasSubstr("a single value is expected"));
  EXPECT_THAT(file->problems[5].problem.message(), HasSubstr("given twice"));
}

TEST(JobFile, ResolvedSpecRoundTripsThroughYaml) {
  const absl::StatusOr<JobFile> file = ParseJobFile(kJob);
  ASSERT_TRUE(file.ok());
  v1::JobSpec spec = file->spec;
  spec.mutable_dataset()->set_system_prompt("Line one\n\t\"two\" \\ null: [x] # é\x01");
  spec.mutable_dataset()->set_chat_template("null");
  spec.set_run_name("- 5: {a}");
  const v1::JobSpec resolved = ResolveDefaults(spec);
  const std::string yaml = SpecToYaml(resolved);
  const absl::StatusOr<JobFile> back = ParseJobFile(yaml);
  ASSERT_TRUE(back.ok()) << back.status() << "\n" << yaml;
  EXPECT_TRUE(back->problems.empty()) << yaml;
  EXPECT_TRUE(MessageDifferencer::Equals(back->spec, resolved)) << yaml;

  v1::JobSpec sources;
  for (const char* path : {"a.jsonl", "b.jsonl"}) {
    v1::DatasetSource* source = sources.mutable_dataset()->add_sources();
    source->set_path(path);
    source->set_limit(5);
  }
  const absl::StatusOr<JobFile> again = ParseJobFile(SpecToYaml(ResolveDefaults(sources)));
  ASSERT_TRUE(again.ok()) << SpecToYaml(ResolveDefaults(sources));
  EXPECT_TRUE(MessageDifferencer::Equals(again->spec, ResolveDefaults(sources)));
}

TEST(Yaml, HostileFilesAreRefusedWithAReason) {
  EXPECT_THAT(ErrorOf("a: &x [1]\nb: [*x, *x]\n"), HasSubstr("line 1: anchors"));
  EXPECT_THAT(ErrorOf("a: *x\n"), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf("a: !!python/object:os.system ls\n"), HasSubstr("tag"));
  EXPECT_THAT(ErrorOf("---\na: 1\n---\nb: 2\n"), HasSubstr("more than one document"));
  EXPECT_THAT(ErrorOf("a: [1, 2\nb: 3\n"), HasSubstr("line "));
  EXPECT_THAT(ErrorOf("a: 1\n\tb: 2\n"), HasSubstr("line "));
  EXPECT_THAT(ErrorOf("? [a, b]\n: 1\n"), HasSubstr("single word"));
  EXPECT_THAT(ErrorOf(std::string(200000, '[')), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf(std::string(40, '[') + std::string(40, ']')),
              HasSubstr("more than 32 levels"));
  EXPECT_THAT(ErrorOf(std::string(5 << 20, 'a')), HasSubstr("bytes"));
  EXPECT_THAT(ErrorOf(std::string("a: \0", 4)), HasSubstr("NUL"));
  std::string many = "a: [";
  for (int i = 0; i < 200000; ++i) many += "1,";
  EXPECT_THAT(ErrorOf(many + "]"), HasSubstr("more than 100000 values"));
  EXPECT_FALSE(ParseJobFile("").ok());
  const auto list = ParseJobFile("- a\n- b\n");
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->problems.size(), 1u);
  const auto bytes = ParseJobFile("run_name: \"\xff\xfe\"\n");
  EXPECT_TRUE(!bytes.ok() || !bytes->problems.empty() || !bytes->spec.run_name().empty());
}

TEST(Yaml, RandomMutations) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 5000; ++round) {
    std::string text = kJob;
    for (int n = 1 + static_cast<int>(random() % 5); n > 0; --n) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          text.erase(at, 1 + random() % 5);
          break;
        default:
          text.insert(at, 1, "[]{}:,-#&*!|>'\"%@`?\n\t "[random() % 23]);
      }
    }
    const absl::StatusOr<JobFile> file = ParseJobFile(text);
    if (file.ok()) {
      ValidateSpec(file->spec);
      SpecToYaml(file->spec);
    } else {
      ASSERT_FALSE(file.status().message().empty());
    }
  }
}

}  // namespace
}  // namespace finetuned
