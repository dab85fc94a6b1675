// What ValidateSpec says about bad and unwise jobs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "proto/spec/spec.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

v1::JobSpec Good() {
  v1::JobSpec spec;
  spec.set_model_name_or_path("smol");
  spec.mutable_dataset()->add_path("data.jsonl");
  return spec;
}

// The problem with `field`, or an empty one.
v1::Problem On(const v1::JobSpec& spec, const std::string& field) {
  for (const v1::Problem& problem : ValidateSpec(spec)) {
    if (problem.field() == field) return problem;
  }
  return {};
}

v1::Problem OnSet(const std::string& key, const std::string& value, const std::string& field) {
  v1::JobSpec spec = Good();
  const absl::Status status = SetKey(&spec, key, value);
  EXPECT_TRUE(status.ok()) << status;
  return On(spec, field);
}

TEST(Validate, MinimalJobAndItsResolvedFormAreClean) {
  EXPECT_TRUE(ValidateSpec(Good()).empty());
  EXPECT_TRUE(ValidateSpec(ResolveDefaults(Good())).empty());
}

TEST(Validate, RequiredKeys) {
  EXPECT_THAT(On({}, "model_name_or_path").message(), HasSubstr("is required"));
  EXPECT_THAT(On({}, "dataset.path").message(), HasSubstr("is required"));
  EXPECT_EQ(On({}, "dataset.path").reason(), v1::INVALID_SPEC);
  v1::JobSpec both = Good();
  both.mutable_dataset()->add_sources()->set_path("x");
  EXPECT_THAT(On(both, "dataset.sources").message(), HasSubstr("together"));
  v1::JobSpec merge;
  merge.set_kind("merge");
  EXPECT_THAT(On(merge, "source.job_id").message(), HasSubstr("required for kind merge"));
  v1::JobSpec generate;
  generate.set_kind("generate");
  generate.mutable_source()->set_job_id("j");
  EXPECT_THAT(On(generate, "source.prompts").message(), HasSubstr("required"));
  generate.mutable_source()->add_prompts("Hi");
  EXPECT_TRUE(ValidateSpec(generate).empty());
}

TEST(Validate, LearningRateFiveMeansFiveEMinusFive) {
  const v1::Problem problem = OnSet("learning_rate", "5", "learning_rate");
  EXPECT_EQ(problem.severity(), v1::Problem::ERROR);
  EXPECT_THAT(problem.message(), HasSubstr("5 is too large"));
  EXPECT_THAT(problem.allowed(), HasSubstr("did you mean 5e-5?"));
  EXPECT_THAT(OnSet("learning_rate", "0.02", "learning_rate").allowed(), HasSubstr("2e-4?"));
  EXPECT_THAT(OnSet("learning_rate", "1e-9", "learning_rate").message(), HasSubstr("too small"));
}

TEST(Validate, RangesAndNonFiniteNumbers) {
  EXPECT_THAT(OnSet("lora.r", "100000", "lora.r").allowed(), HasSubstr("1…512"));
  EXPECT_THAT(OnSet("lora.alpha", "0", "lora.alpha").message(), HasSubstr("too small"));
  EXPECT_THAT(OnSet("lora.rank_pattern", "{q_proj: 0}", "lora.rank_pattern.q_proj").message(),
              HasSubstr("too small"));
  EXPECT_THAT(OnSet("devices", "2", "devices").message(), HasSubstr("not built yet"));
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    v1::JobSpec spec = Good();
    spec.set_learning_rate(bad);
    spec.mutable_lora()->mutable_alpha()->set_value(bad);
    EXPECT_THAT(On(spec, "learning_rate").message(), HasSubstr("not a finite number"));
    EXPECT_THAT(On(spec, "lora.alpha").message(), HasSubstr("not a finite number"));
  }
}

TEST(Validate, AllowedValuesAndWhatIsNotBuilt) {
  EXPECT_THAT(OnSet("lr_scheduler_type", "cosin", "lr_scheduler_type").allowed(),
              HasSubstr("did you mean cosine?"));
  EXPECT_THAT(OnSet("lora.adapter", "dora", "lora.adapter").message(),
              HasSubstr("DoRA is not built yet; use lora"));
  EXPECT_THAT(OnSet("lora.adapter", "full", "lora.adapter").message(),
              HasSubstr("full fine-tuning"));
  EXPECT_THAT(OnSet("lora.adapter", "prefix_tuning", "lora.adapter").message(),
              HasSubstr("nearest choice"));
  EXPECT_THAT(OnSet("export.formats", "[adapter, onnx]", "export.formats").message(),
              HasSubstr("ONNX is not built yet"));
  EXPECT_THAT(OnSet("neftune_noise_alpha", "5", "neftune_noise_alpha").message(),
              HasSubstr("not built yet"));
  EXPECT_THAT(OnSet("deterministic", "false", "deterministic").message(), HasSubstr("not built"));
  EXPECT_EQ(OnSet("dataset.weight", "1.0", "dataset.weight").message(), "");
  EXPECT_THAT(OnSet("dataset.columns", "{instrction: q}", "dataset.columns").allowed(),
              HasSubstr("did you mean instruction?"));
  v1::JobSpec direct = Good();
  direct.set_optimizer("adamw_torch");  // an alias in the proto itself
  EXPECT_TRUE(ValidateSpec(direct).empty());
  EXPECT_EQ(ResolveDefaults(direct).optimizer(), "adamw");
}

TEST(Validate, EveryKeyNotBuiltIsRefusedAndEveryAllowedValueIsKnown) {
  for (const KeyInfo& info : AllKeys()) {
    if (info.in_list) continue;
    for (const std::string& entry : info.key.not_built()) {
      v1::JobSpec spec = Good();
      const std::string value = entry.substr(0, entry.find('='));
      ASSERT_TRUE(SetKey(&spec, info.path, value).ok()) << info.path << " " << value;
      EXPECT_EQ(On(spec, info.path).severity(), v1::Problem::ERROR) << info.path << " " << value;
    }
  }
}

TEST(Validate, KeysTogether) {
  EXPECT_THAT(OnSet("max_runtime", "8", "max_runtime").allowed(), HasSubstr("8h"));
  EXPECT_EQ(OnSet("max_runtime", "1h30m", "max_runtime").message(), "");
  EXPECT_THAT(OnSet("dataset.split.method", "file", "dataset.split.validation_path").message(),
              HasSubstr("required"));
  v1::JobSpec spec = Good();
  ASSERT_TRUE(SetKey(&spec, "validation_file", "v.jsonl").ok());
  EXPECT_TRUE(ValidateSpec(spec).empty());
  EXPECT_EQ(ResolveDefaults(spec).dataset().split().method(), "file");
  spec.mutable_dataset()->mutable_split()->set_method("random");
  EXPECT_EQ(On(spec, "dataset.split.method").severity(), v1::Problem::ERROR);
}

TEST(Validate, Warnings) {
  v1::Problem problem = OnSet("lora.r", "64", "lora.alpha");
  EXPECT_EQ(problem.severity(), v1::Problem::WARNING);
  EXPECT_THAT(problem.message(), HasSubstr("alpha/r is 0.5"));
  EXPECT_THAT(problem.allowed(), HasSubstr("lora.alpha: 128"));
  problem = OnSet("learning_rate", "5e-3", "learning_rate");
  EXPECT_EQ(problem.severity(), v1::Problem::WARNING);
  EXPECT_THAT(problem.message(), HasSubstr("0.01 (0.005 × 2), above the band"));
  EXPECT_THAT(problem.allowed(), HasSubstr("learning_rate: 0.001"));
  v1::JobSpec spec = Good();
  ASSERT_TRUE(SetKey(&spec, "micro_batch_size", "2").ok());
  ASSERT_TRUE(SetKey(&spec, "gradient_accumulation_steps", "2").ok());
  ASSERT_TRUE(SetKey(&spec, "save_steps", "50").ok());
  ASSERT_TRUE(SetKey(&spec, "eval_steps", "20").ok());
  EXPECT_THAT(On(spec, "gradient_accumulation_steps").message(), HasSubstr("effective batch is 4"));
  EXPECT_THAT(On(spec, "save_steps").message(), HasSubstr("no multiple of eval_steps 20"));
  EXPECT_FALSE(HasErrors(ValidateSpec(spec)));
}

TEST(Validate, HostileSizes) {
  v1::JobSpec spec = Good();
  for (int i = 0; i < 5000; ++i) spec.mutable_lora()->add_target_modules("x");
  spec.set_run_name(std::string(100000, 'x'));
  spec.mutable_dataset()->set_system_prompt(std::string("a\0b", 3));
  for (int i = 0; i < 4000; ++i) spec.mutable_dataset()->add_path("");
  EXPECT_THAT(On(spec, "lora.target_modules").message(), HasSubstr("5000 entries"));
  EXPECT_THAT(On(spec, "run_name").allowed(), HasSubstr("at most 4096 bytes"));
  EXPECT_THAT(On(spec, "dataset.system_prompt").message(), HasSubstr("NUL"));
  EXPECT_LE(ValidateSpec(spec).size(), 100u);
}

TEST(Duration, Units) {
  EXPECT_EQ(ParseDurationSeconds("8h"), 28800);
  EXPECT_EQ(ParseDurationSeconds("1h30m"), 5400);
  EXPECT_EQ(ParseDurationSeconds("45s"), 45);
  for (const char* bad :
       {"", "8", "h", "30m1h", "1h1h", "-1h", "8 h", "1d", "1e9h", "99999999999999h"}) {
    EXPECT_LT(ParseDurationSeconds(bad), 0) << bad;
  }
}

}  // namespace
}  // namespace finetuned
