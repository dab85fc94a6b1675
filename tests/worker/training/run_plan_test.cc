#include "worker/training/run_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace finetuned {
namespace {

v1::JobSpec Spec(int64_t rows, int64_t accumulation) {
  v1::JobSpec spec;
  spec.set_seed(7);
  spec.set_packing(true);
  spec.set_max_seq_length(64);
  spec.mutable_per_device_train_batch_size()->set_value(rows);
  spec.mutable_gradient_accumulation_steps()->set_value(accumulation);
  spec.set_num_train_epochs(2);
  spec.set_eval_strategy("steps");
  spec.mutable_eval_steps()->set_auto_(true);
  spec.mutable_evaluation()->set_budget_fraction(0.15);
  return spec;
}

std::vector<int32_t> Lengths(size_t count) {
  std::mt19937 random(3);
  std::vector<int32_t> lengths(count);
  for (int32_t& length : lengths) length = static_cast<int32_t>(2 + random() % 60);
  return lengths;
}

TEST(RunPlan, EverySampleOnceAnEpochAndThePartialWindowIsKept) {
  RunPlan plan(Spec(2, 3), Lengths(101), 0);
  std::map<int64_t, std::map<uint32_t, int>> seen;
  for (int64_t step = 0; step < plan.total_steps(); ++step) {
    const RunPlan::Window window = plan.At(step);
    EXPECT_GE(window.micro_batches.size(), 1u);
    EXPECT_LE(window.micro_batches.size(), 3u);
    for (const MicroBatch& batch : window.micro_batches) {
      for (const auto& row : batch.rows) {
        for (uint32_t index : row) ++seen[window.epoch][index];
      }
    }
  }
  ASSERT_EQ(seen.size(), 2u);
  for (const auto& [epoch, samples] : seen) {
    EXPECT_EQ(samples.size(), 101u);
    for (const auto& [index, times] : samples) EXPECT_EQ(times, 1);
  }
  EXPECT_TRUE(plan.EndsEpoch(plan.total_steps()));
  EXPECT_DOUBLE_EQ(plan.EpochAt(plan.total_steps()), 2.0);
}

TEST(RunPlan, MaxStepsWinAndMayEndInsideAnEpoch) {
  v1::JobSpec spec = Spec(1, 1);
  spec.set_max_steps(5);
  RunPlan plan(spec, Lengths(300), 1000);
  EXPECT_EQ(plan.total_steps(), 5);
  EXPECT_LT(plan.EpochAt(5), 1.0);
  EXPECT_TRUE(plan.EvaluatesAt(5));
}

TEST(RunPlan, AFractionOfAnEpochIsRoundedUp) {
  v1::JobSpec spec = Spec(1, 1);
  spec.set_num_train_epochs(1);
  const int64_t whole = RunPlan(spec, Lengths(300), 0).total_steps();
  spec.set_num_train_epochs(0.5);
  EXPECT_EQ(RunPlan(spec, Lengths(300), 0).total_steps(), (whole + 1) / 2);
}

TEST(RunPlan, AutomaticEvaluationsKeepToTheirBudget) {
  const std::vector<int32_t> lengths = Lengths(1000);
  const RunPlan cheap(Spec(1, 1), lengths, 10);
  const RunPlan dear(Spec(1, 1), lengths, 1000000);
  EXPECT_GE(cheap.eval_steps(), 10);
  EXPECT_GT(dear.eval_steps(), cheap.eval_steps());
}

}  // namespace
}  // namespace finetuned
