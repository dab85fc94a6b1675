// EvaluateLoss against a direct computation in fp64 from the logits of one document at a time.
#include "worker/evaluation/loss.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "tests/fakes/temp_dir.h"
#include "tests/worker/evaluation/list_store.h"
#include "tests/worker/models/tiny_llama.h"
#include "worker/evaluation/batch_builder.h"

namespace finetuned {
namespace {

class EvaluateLossTest : public testing::Test {
 protected:
  EvaluateLossTest() {
    WriteTinyLlama(dir_.path());
    model_ = LoadCausalLm(dir_.path(), {});
    std::mt19937 random(3);
    for (int i = 0; i < 17; ++i) {
      ListedSample sample;
      for (size_t length = 1 + random() % 30; sample.ids.size() < length;) {
        sample.ids.push_back(static_cast<int32_t>(random() % 61));
        sample.trained.push_back(sample.ids.size() > 1 && random() % 3 == 0);
      }
      samples_.push_back(sample);
    }
  }

  struct Sums {
    double response = 0, prompt = 0;
    int64_t response_tokens = 0, prompt_tokens = 0;
  };
  Sums Direct(size_t count) {
    c10::InferenceMode no_gradients;
    Sums sums;
    const ListStore store(samples_);
    for (uint32_t i = 0; i < count; ++i) {
      const Batch batch = BuildBatch(store, {{{i}}}, Targets::kAllTokens, at::kCPU);
      const at::Tensor log_p =
          at::log_softmax(model_->Logits(model_->Hidden(batch)).to(at::kDouble), 1);
      for (size_t t = 1; t < samples_[i].ids.size(); ++t) {
        const double nll = -log_p[static_cast<int64_t>(t) - 1][samples_[i].ids[t]].item<double>();
        (samples_[i].trained[t] ? sums.response : sums.prompt) += nll;
        ++(samples_[i].trained[t] ? sums.response_tokens : sums.prompt_tokens);
      }
    }
    return sums;
  }

  TempDir dir_;
  std::unique_ptr<CausalLm> model_;
  std::vector<ListedSample> samples_;
};

TEST_F(EvaluateLossTest, EqualsADirectComputationForEveryShapeOfBatch) {
  const Sums direct = Direct(samples_.size());
  ASSERT_GT(direct.response_tokens, 20);
  ASSERT_GT(direct.prompt_tokens, 20);
  for (const auto& [rows, length] : {std::pair<int64_t, int64_t>{1, 30}, {4, 64}, {100, 2048}}) {
    EvaluateOptions options;
    options.rows = rows;
    options.max_seq_length = length;
    options.all_tokens = true;
    int64_t told = 0;
    options.progress = [&](int64_t done, int64_t total) {
      told = done;
      EXPECT_EQ(total, 17);
    };
    const v1::EvaluationResult result = EvaluateLoss(*model_, ListStore(samples_), options);
    EXPECT_EQ(told, 17);
    EXPECT_EQ(result.samples(), 17);
    EXPECT_EQ(result.response().tokens(), direct.response_tokens);
    EXPECT_EQ(result.prompt().tokens(), direct.prompt_tokens);
    EXPECT_EQ(result.overall().tokens(), direct.response_tokens + direct.prompt_tokens);
    const double response = direct.response / static_cast<double>(direct.response_tokens);
    EXPECT_NEAR(result.response().loss(), response, 1e-6 * response);
    EXPECT_NEAR(result.response().perplexity(), std::exp(response), 1e-5 * std::exp(response));
    const double prompt = direct.prompt / static_cast<double>(direct.prompt_tokens);
    EXPECT_NEAR(result.prompt().loss(), prompt, 1e-6 * prompt);
    const double overall = (direct.response + direct.prompt) /
                           static_cast<double>(direct.response_tokens + direct.prompt_tokens);
    EXPECT_NEAR(result.overall().loss(), overall, 1e-6 * overall);
  }
}

TEST_F(EvaluateLossTest, OnlyTheFirstSamplesAndOnlyResponses) {
  const Sums direct = Direct(5);
  EvaluateOptions options;
  options.max_samples = 5;
  const ListStore store(samples_);
  const v1::EvaluationResult result = EvaluateLoss(*model_, store, options);
  EXPECT_EQ(result.samples(), 5);
  EXPECT_EQ(result.response().tokens(), direct.response_tokens);
  EXPECT_NEAR(result.response().loss(),
              direct.response / static_cast<double>(direct.response_tokens), 1e-5);
  EXPECT_FALSE(result.has_prompt());
  EXPECT_FALSE(result.has_overall());
  int64_t tokens = 0;
  for (size_t i = 0; i < 5; ++i) tokens += static_cast<int64_t>(samples_[i].ids.size());
  EXPECT_EQ(EvaluationTokens(store, 5), tokens);
  EXPECT_GT(EvaluationTokens(store, 0), tokens);
  EXPECT_EQ(EvaluationTokens(store, 0), EvaluationTokens(store, 1000));
}

TEST_F(EvaluateLossTest, DrawsNoRandomNumbers) {
  at::manual_seed(9);
  const at::Tensor expected = at::rand({4});
  at::manual_seed(9);
  EvaluateLoss(*model_, ListStore(samples_), {});
  EXPECT_TRUE(at::equal(at::rand({4}), expected));
}

TEST_F(EvaluateLossTest, NothingTrainedIsNotALossOfZero) {
  for (ListedSample& sample : samples_) std::fill(sample.trained.begin(), sample.trained.end(), 0);
  const v1::EvaluationResult result = EvaluateLoss(*model_, ListStore(samples_), {});
  EXPECT_EQ(result.response().tokens(), 0);
  EXPECT_TRUE(std::isnan(result.response().loss()));
  EXPECT_TRUE(std::isnan(result.response().perplexity()));
}

TEST_F(EvaluateLossTest, EndsWhenCancelled) {
  EvaluateOptions options;
  options.rows = 1;
  options.max_seq_length = 30;
  int asked = 0;
  options.cancelled = [&] { return ++asked == 3; };
  EXPECT_THROW(EvaluateLoss(*model_, ListStore(samples_), options), std::runtime_error);
  EXPECT_EQ(asked, 3);
}

}  // namespace
}  // namespace finetuned
