#include "worker/evaluation/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/evaluation/loss.h"

namespace finetuned {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using Curve = std::vector<std::pair<int64_t, double>>;

TEST(TrainingVerdictTest, ComparesTheLastTwoEvaluations) {
  EXPECT_EQ(TrainingVerdict({{10, 3.0}}, {{10, 2.5}}, 0, 3), "first evaluation");
  EXPECT_EQ(TrainingVerdict({{10, 3.0}, {20, 2.0}}, {{10, 3.0}, {20, 1.6}}, 0, 3),
            "improving, eval/train loss 1.25");
  EXPECT_THAT(TrainingVerdict({{10, 2.0}, {20, 2.0005}}, {{10, 2.0}, {20, 1.9}}, 1, 3),
              StartsWith("plateau"));
  EXPECT_THAT(TrainingVerdict({{10, 2.0}, {20, 2.2}}, {{10, 2.0}, {20, 1.5}}, 1, 3),
              StartsWith("overfitting"));
  EXPECT_THAT(TrainingVerdict({{10, 2.0}, {20, 2.2}}, {{10, 2.0}, {20, 2.3}}, 1, 3),
              StartsWith("worse"));
}

TEST(TrainingVerdictTest, SaysWhenItWillStop) {
  const Curve eval = {{10, 2.0}, {20, 2.2}, {30, 2.4}}, train = {{10, 2.0}, {20, 1.5}, {30, 1.2}};
  EXPECT_EQ(TrainingVerdict(eval, train, 2, 3),
            "overfitting, eval/train loss 2.00, not improved for 2 evaluations, stops in 1 more");
  EXPECT_THAT(TrainingVerdict(eval, train, 1, 3), HasSubstr("for 1 evaluation, stops in 2 more"));
  EXPECT_THAT(TrainingVerdict(eval, train, 5, 3), HasSubstr("stops in 0 more"));
  EXPECT_THAT(TrainingVerdict(eval, train, 2, 0), Not(HasSubstr("stops")));
}

v1::JobResult Result(double base_loss, double tuned_loss) {
  v1::JobResult result;
  FillLoss(base_loss * 100, 100, result.mutable_base()->mutable_response());
  FillLoss(tuned_loss * 100, 100, result.mutable_tuned()->mutable_response());
  result.mutable_tuned()->set_samples(600);
  return result;
}

TEST(JobVerdictTest, OneWordThenTheFactsThenWhatToDo) {
  v1::JobResult improved = Result(3.75, 2.03);
  EXPECT_THAT(JobVerdict(improved), StartsWith("improved: response perplexity 42.52 → 7.61 ("));
  EXPECT_THAT(JobVerdict(improved), HasSubstr("82.1 %) on 600 samples"));
  EXPECT_THAT(JobVerdict(improved), HasSubstr("; ready to deploy"));
  improved.add_exports()->set_name("adapter");
  improved.add_exports()->set_name("gguf q8_0");
  EXPECT_THAT(JobVerdict(improved), HasSubstr("; verified: adapter, gguf q8_0; ready to deploy"));
}

TEST(JobVerdictTest, NothingIsReadyThatIsNotBetter) {
  for (double tuned : {2.0, 1.995, 2.5}) {
    EXPECT_THAT(JobVerdict(Result(2.0, tuned)), HasSubstr("; not ready to deploy: ")) << tuned;
  }
  EXPECT_THAT(JobVerdict(Result(2.0, 1.995)), StartsWith("unchanged"));
  EXPECT_THAT(JobVerdict(Result(2.0, 2.5)), StartsWith("regressed"));
  const std::string nothing = JobVerdict(v1::JobResult());
  EXPECT_THAT(nothing, StartsWith("not compared"));
  EXPECT_THAT(nothing, HasSubstr("; evaluate before deploying"));
  EXPECT_THAT(nothing, Not(HasSubstr("ready")));
}

TEST(JobVerdictTest, ATunedModelThatIsNotANumberIsNotReady) {
  const v1::JobResult result = Result(2.0, std::numeric_limits<double>::quiet_NaN());
  EXPECT_THAT(JobVerdict(result), HasSubstr("not ready to deploy"));
  EXPECT_THAT(JobVerdict(result), Not(StartsWith("improved")));
}

}  // namespace
}  // namespace finetuned
