// The training loop on a tiny random Llama: accumulation by tokens, bit-equal resume, skipped updates, damaged checkpoints,
// early stopping.
#include "worker/training/trainer.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "tests/fakes/temp_dir.h"
#include "tests/worker/models/tiny_llama.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// Random documents; the second half of each is trained.
class MemoryStore : public TokenStore {
 public:
  MemoryStore(size_t count, uint32_t seed, bool trained = true) {
    std::mt19937 random(seed);
    for (size_t i = 0; i < count; ++i) {
      const size_t length = 4 + random() % 27;
      std::vector<int32_t> ids(length);
      // A pattern that can be learnt: each token is a function of the one before.
      ids[0] = static_cast<int32_t>(random() % 61);
      for (size_t j = 1; j < length; ++j) ids[j] = (ids[j - 1] * 3 + 1) % 61;
      std::vector<uint8_t> mask(length, 0);
      for (size_t j = length / 2; j < length; ++j) mask[j] = trained;
      ids_.push_back(ids);
      masks_.push_back(mask);
      names_.push_back("sample-" + std::to_string(i));
    }
  }
  size_t size() const override { return ids_.size(); }
  SampleView Sample(size_t i) const override { return {ids_[i], masks_[i], names_[i]}; }
  int64_t total_tokens() const override { return 0; }
  int64_t trained_tokens() const override { return 0; }

 private:
  std::vector<std::vector<int32_t>> ids_;
  std::vector<std::vector<uint8_t>> masks_;
  std::vector<std::string> names_;
};

struct Record {
  TrainResult result;
  std::vector<v1::TrainingMetrics> metrics;
  std::vector<v1::EvaluationResult> evaluations;
  std::vector<v1::Intervention> interventions;
  std::vector<std::string> logs;
  std::vector<at::Tensor> weights;
};

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() {
    WriteTinyLlama(dir_ / "model");
    data_.train = std::make_shared<MemoryStore>(23, 1);
    data_.validation = std::make_shared<MemoryStore>(6, 2);
    data_.content_sha256 = "data";
    spec_.set_seed(42);
    spec_.set_packing(true);
    spec_.set_max_seq_length(32);
    spec_.mutable_per_device_train_batch_size()->set_value(2);
    spec_.mutable_per_device_eval_batch_size()->set_value(2);
    spec_.mutable_gradient_accumulation_steps()->set_value(2);
    spec_.set_learning_rate(1e-2);
    spec_.set_lr_scheduler_type("cosine");
    spec_.set_warmup_ratio(0.1);
    spec_.set_num_train_epochs(3);
    spec_.set_max_grad_norm(1.0);
    spec_.set_adam_beta1(0.9);
    spec_.set_adam_beta2(0.999);
    spec_.set_adam_epsilon(1e-8);
    spec_.set_logging_steps(1);
    spec_.set_eval_strategy("steps");
    spec_.mutable_eval_steps()->set_value(3);
    spec_.set_save_strategy("steps");
    spec_.mutable_save_steps()->set_value(2);
    spec_.set_save_total_limit(3);
    spec_.mutable_evaluation()->set_max_eval_samples(6);
    spec_.mutable_lora()->mutable_r()->set_value(4);
    spec_.mutable_lora()->mutable_alpha()->set_value(8);
    spec_.mutable_lora()->mutable_dropout()->set_value(0.1);
  }

  // One attempt in `job`, stopped with `stop` once `stop_after` steps are told; `tamper` may change the fresh adapters.
  Record Attempt(const std::string& job, int64_t stop_after = -1, StopRequest stop = StopRequest::kPause,
              const std::function<void(LoraAdapters&)>& tamper = nullptr) {
    auto model = LoadCausalLm((dir_ / "model").string(), {});
    auto adapters = LoraAdapters::Inject(*model, spec_.lora(), spec_.seed());
    if (tamper) tamper(*adapters);
    TrainInputs in;
    in.spec = spec_;
    in.model = model.get();
    in.adapters = adapters.get();
    in.data = &data_;
    in.checkpoint_dir = (dir_ / job).string();
    in.base_model_name = "tiny";
    in.spec_sha256 = spec_sha256_;
    Record run;
    TrainObserver observer;
    observer.metrics = [&](const auto& m) { run.metrics.push_back(m); };
    observer.evaluation = [&](const auto& e) { run.evaluations.push_back(e); };
    observer.checkpoint = [](const auto&) {};
    observer.epoch = [](const auto&) {};
    observer.memory = [](const auto&) {};
    observer.intervention = [&](const auto& i) { run.interventions.push_back(i); };
    observer.progress = [](const auto&) {};
    observer.log = [&](v1::Level, std::string text) { run.logs.push_back(std::move(text)); };
    observer.stop_requested = [&] {
      return stop_after >= 0 && static_cast<int64_t>(run.metrics.size()) >= stop_after ? stop : StopRequest::kNone;
    };
    run.result = Train(in, observer);
    for (const auto& parameter : adapters->parameters()) run.weights.push_back(parameter.tensor.detach().clone());
    return run;
  }

  static void ExpectSameSteps(const Record& whole, const Record& part) {
    ASSERT_FALSE(part.metrics.empty());
    for (const auto& step : part.metrics) {
      const auto& same = whole.metrics.at(static_cast<size_t>(step.step() - 1));
      EXPECT_EQ(step.loss(), same.loss()) << "step " << step.step();
      EXPECT_EQ(step.grad_norm(), same.grad_norm()) << "step " << step.step();
      EXPECT_EQ(step.learning_rate(), same.learning_rate()) << "step " << step.step();
    }
  }
  static void ExpectSameWeights(const Record& a, const Record& b) {
    for (size_t i = 0; i < a.weights.size(); ++i) EXPECT_TRUE(at::equal(a.weights[i], b.weights[i])) << i;
  }

  const TempDir temp_;
  const fs::path dir_ = temp_.path();
  PreparedData data_;
  v1::JobSpec spec_;
  std::string spec_sha256_ = "spec";
};

TEST_F(TrainerTest, LearnsAndTwoRunsAreEqual) {
  const Record a = Attempt("a"), b = Attempt("b");
  EXPECT_LT(a.metrics.back().loss(), a.metrics.front().loss());
  EXPECT_EQ(a.metrics.size(), b.metrics.size());
  ExpectSameSteps(a, b);
  ExpectSameWeights(a, b);
}

TEST_F(TrainerTest, PausedAndResumedAtEveryStepEqualsTheUninterruptedRun) {
  const Record whole = Attempt("whole");
  const int64_t total = whole.result.total_steps;
  ASSERT_GE(total, 6);
  Record last;
  for (int64_t step = 1; step < total; ++step) {
    const Record part = Attempt("parts", /*stop_after=*/1);
    EXPECT_EQ(part.result.outcome, TrainOutcome::kPaused);
    EXPECT_EQ(part.result.state.step, step);
    ExpectSameSteps(whole, part);
  }
  last = Attempt("parts");
  ExpectSameSteps(whole, last);
  ExpectSameWeights(whole, last);
}

TEST_F(TrainerTest, CancelledWithoutACheckpointGoesOnFromTheLastOne) {
  const Record whole = Attempt("whole");
  Attempt("killed", /*stop_after=*/5, StopRequest::kCancel);
  const Record rest = Attempt("killed");
  EXPECT_LE(rest.metrics.front().step(), 6);
  EXPECT_GT(rest.metrics.front().step(), 1);
  ExpectSameSteps(whole, rest);
  ExpectSameWeights(whole, rest);
}

TEST_F(TrainerTest, ADamagedCheckpointIsSetAsideAndTheOneBeforeUsed) {
  const Record whole = Attempt("whole");
  const Record part = Attempt("damaged", /*stop_after=*/5);
  ASSERT_EQ(part.result.state.step, 5);
  const fs::path newest = dir_ / "damaged/step-00000005";
  std::fstream(newest / "optimizer.safetensors", std::ios::in | std::ios::out | std::ios::binary).seekp(900).put('x').put('y').put('z');
  const Record rest = Attempt("damaged");
  EXPECT_LT(rest.metrics.front().step(), 6);
  EXPECT_TRUE(fs::exists(dir_ / "damaged/corrupt-step-00000005"));
  EXPECT_THAT(rest.logs, testing::Contains(HasSubstr("optimizer.safetensors does not match")));
  ExpectSameSteps(whole, rest);
  ExpectSameWeights(whole, rest);
}

TEST_F(TrainerTest, ResumingWithOtherDataOrSettingsIsRefusedByName) {
  Attempt("job", /*stop_after=*/2);
  data_.content_sha256 = "other";
  try {
    Attempt("job");
    FAIL() << "other data were accepted";
  } catch (const TrainingError& error) {
    EXPECT_EQ(error.reason, v1::CHECKPOINT_CORRUPT);
    EXPECT_THAT(error.what(), HasSubstr("training set"));
  }
  data_.content_sha256 = "data";
  spec_sha256_ = "other";
  EXPECT_THROW(Attempt("job"), TrainingError);
}

// The same rows in updates of one shape or another give the same first gradient and update, to rounding; the epoch's last,
// partial window included.
TEST_F(TrainerTest, AccumulationIsWeightedByTokens) {
  spec_.mutable_lora()->mutable_dropout()->set_value(0);
  std::vector<Record> runs;
  for (const auto& [rows, accumulation] : {std::pair{4, 1}, {2, 2}, {1, 4}}) {
    spec_.mutable_per_device_train_batch_size()->set_value(rows);
    spec_.mutable_gradient_accumulation_steps()->set_value(accumulation);
    runs.push_back(Attempt("shape" + std::to_string(rows)));
  }
  for (size_t i = 1; i < runs.size(); ++i) {
    ASSERT_EQ(runs[i].metrics.size(), runs[0].metrics.size());
    for (size_t step = 0; step < runs[0].metrics.size(); ++step) {
      EXPECT_EQ(runs[i].metrics[step].trained_tokens(), runs[0].metrics[step].trained_tokens());
      EXPECT_NEAR(runs[i].metrics[step].loss(), runs[0].metrics[step].loss(), 2e-4 * runs[0].metrics[step].loss()) << step;
      EXPECT_NEAR(runs[i].metrics[step].grad_norm(), runs[0].metrics[step].grad_norm(), 2e-3 * runs[0].metrics[step].grad_norm()) << step;
    }
    // Before the first update there is nothing but rounding of one pass.
    EXPECT_NEAR(runs[i].metrics[0].grad_norm(), runs[0].metrics[0].grad_norm(), 1e-5 * runs[0].metrics[0].grad_norm());
  }
}

TEST_F(TrainerTest, ANonFiniteModelEndsTheJobInItsPreflight) {
  data_.validation = std::make_shared<MemoryStore>(0, 2);
  try {
    Attempt("nan", -1, StopRequest::kNone, [](LoraAdapters& adapters) {
      at::NoGradGuard no_grad;
      adapters.parameters().front().tensor.fill_(std::numeric_limits<float>::quiet_NaN());
    });
    FAIL() << "a NaN adapter was accepted";
  } catch (const TrainingError& error) {
    EXPECT_EQ(error.reason, v1::NAN_LOSS);
    EXPECT_THAT(error.what(), HasSubstr("preflight"));
  }
}

TEST_F(TrainerTest, StopsEarlyAndEndsWithTheBestWeights) {
  spec_.set_learning_rate(1e-2);
  spec_.set_num_train_epochs(60);
  spec_.set_early_stopping_patience(2);
  spec_.set_early_stopping_threshold(0.001);
  spec_.set_load_best_model_at_end(true);
  data_.validation = std::make_shared<MemoryStore>(6, 99);
  const Record run = Attempt("early");
  ASSERT_TRUE(run.result.state.has_best);
  double best = std::numeric_limits<double>::infinity();
  for (const auto& evaluation : run.evaluations) best = std::min(best, evaluation.response().loss());
  EXPECT_EQ(run.result.state.best_eval_loss, best);
  EXPECT_TRUE(fs::exists(dir_ / "early" / ("step-" + std::string(8 - std::to_string(run.result.state.best_step).size(), '0') +
                                           std::to_string(run.result.state.best_step))));
  if (run.result.state.step < run.result.total_steps) {
    EXPECT_TRUE(run.result.state.stopped_early);
    EXPECT_GE(run.result.state.evaluations_without_improvement, 2);
  }
}

}  // namespace
}  // namespace finetuned
