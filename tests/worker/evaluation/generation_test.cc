// Generation on a small real model (cache and batching change nothing) and on a model with given
// logits (the draws).
#include "worker/evaluation/generation.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/fakes/temp_dir.h"
#include "tests/worker/evaluation/list_store.h"
#include "tests/worker/models/tiny_llama.h"
#include "worker/evaluation/batch_builder.h"

namespace finetuned {
namespace {

using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;
using Ids = std::vector<int32_t>;

GenerateOptions Greedy(int64_t max_new_tokens) {
  GenerateOptions options;
  options.settings.set_max_new_tokens(max_new_tokens);
  options.settings.set_temperature(0);
  options.settings.set_top_p(1);
  options.settings.set_top_k(0);
  options.settings.set_repetition_penalty(1);
  return options;
}

class GenerationTest : public testing::Test {
 protected:
  GenerationTest() {
    WriteTinyLlama(dir_.path());
    model_ = LoadCausalLm(dir_.path(), {});
  }

  // The whole sequence through the model for every token.
  Ids WithoutCache(const Ids& prompt, int64_t count, double penalty = 1) {
    c10::InferenceMode no_gradients;
    Ids sequence = prompt;
    for (int64_t i = 0; i < count; ++i) {
      const ListStore store({{sequence, std::vector<uint8_t>(sequence.size(), 0)}});
      at::Tensor logits =
          model_
              ->Logits(model_->Hidden(BuildBatch(store, {{{0}}}, Targets::kTrained, at::kCPU)))[-1]
              .clone();
      for (int32_t id = 0; id < 61; ++id) {
        if (std::find(sequence.begin(), sequence.end(), id) == sequence.end()) continue;
        const float logit = logits[id].item<float>();
        logits[id] = logit > 0 ? logit / penalty : logit * penalty;
      }
      sequence.push_back(static_cast<int32_t>(logits.argmax().item<int64_t>()));
    }
    return {sequence.begin() + static_cast<std::ptrdiff_t>(prompt.size()), sequence.end()};
  }

  const std::vector<Ids> prompts_ = {{7},
                                     {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11},
                                     {60, 59, 3},
                                     {5, 5, 5, 5, 5},
                                     {30, 1, 44, 2, 17, 8, 23}};
  TempDir dir_;
  std::unique_ptr<CausalLm> model_;
};

TEST_F(GenerationTest, CacheAndBatchingChangeNothing) {
  const std::vector<Ids> together = Generate(*model_, prompts_, Greedy(20));
  ASSERT_EQ(together.size(), prompts_.size());
  for (size_t i = 0; i < prompts_.size(); ++i) {
    EXPECT_EQ(together[i], WithoutCache(prompts_[i], 20)) << "prompt " << i;
    EXPECT_EQ(Generate(*model_, {prompts_[i]}, Greedy(20))[0], together[i]) << "prompt " << i;
  }
}

TEST_F(GenerationTest, RepetitionPenaltyIsTransformersOwn) {
  GenerateOptions options = Greedy(20);
  options.settings.set_repetition_penalty(1.7);
  const std::vector<Ids> answers = Generate(*model_, prompts_, options);
  for (size_t i = 0; i < prompts_.size(); ++i)
    EXPECT_EQ(answers[i], WithoutCache(prompts_[i], 20, 1.7)) << "prompt " << i;
  EXPECT_NE(answers, Generate(*model_, prompts_, Greedy(20)));
}

TEST_F(GenerationTest, AStopTokenEndsItsOwnAnswerOnly) {
  const std::vector<Ids> whole = Generate(*model_, prompts_, Greedy(20));
  const int32_t stop = whole[1][3];
  GenerateOptions options = Greedy(20);
  options.stop_token_ids = {-1, stop};
  const std::vector<Ids> answers = Generate(*model_, prompts_, options);
  for (size_t i = 0; i < prompts_.size(); ++i) {
    EXPECT_EQ(answers[i], Ids(whole[i].begin(), std::find(whole[i].begin(), whole[i].end(), stop)))
        << "prompt " << i;
  }
  EXPECT_LE(answers[1].size(), 3u);
}

TEST_F(GenerationTest, StaysWithinThePositionsOfTheModel) {
  EXPECT_EQ(Generate(*model_, {Ids(60, 3)}, Greedy(20))[0].size(), 4u);
  EXPECT_THAT(Generate(*model_, {Ids(64, 3)}, Greedy(20))[0], IsEmpty());
  EXPECT_THAT(Generate(*model_, {}, Greedy(20)), IsEmpty());
  EXPECT_THROW(Generate(*model_, {{1}, {}}, Greedy(20)), std::invalid_argument);
}

TEST_F(GenerationTest, SampledAnswersAreAFunctionOfTheSeed) {
  GenerateOptions options = Greedy(20);
  options.settings.set_temperature(1);
  options.seed = 1;
  const std::vector<Ids> first = Generate(*model_, prompts_, options);
  at::manual_seed(77);  // the process's own generator has no part in it
  EXPECT_EQ(Generate(*model_, prompts_, options), first);
  options.seed = 2;
  EXPECT_NE(Generate(*model_, prompts_, options), first);
  options.settings.set_top_k(1);
  EXPECT_EQ(Generate(*model_, prompts_, options), Generate(*model_, prompts_, Greedy(20)));
  options.settings.set_top_k(0);
  options.settings.set_top_p(1e-6);
  EXPECT_EQ(Generate(*model_, prompts_, options), Generate(*model_, prompts_, Greedy(20)));
}

TEST_F(GenerationTest, EndsWhenCancelled) {
  GenerateOptions options = Greedy(20);
  int asked = 0;
  options.cancelled = [&] { return ++asked > 2; };
  EXPECT_THROW(Generate(*model_, prompts_, options), std::runtime_error);
}

// The same logits at every position.
class FixedModel : public CausalLm {
 public:
  explicit FixedModel(std::vector<float> logits) : logits_(at::tensor(logits)) {
    config_.vocab_size = logits_.size(0);
    config_.max_position_embeddings = 16;
  }
  struct NoCache : KvCache {
    int64_t length() const override { return 0; }
  };
  const ModelConfig& config() const override { return config_; }
  at::Device device() const override { return at::kCPU; }
  at::ScalarType compute_dtype() const override { return at::kFloat; }
  at::Tensor Hidden(const Batch&) override { return {}; }
  at::Tensor Logits(const at::Tensor&) override { return {}; }
  at::Tensor LossSum(const Batch&) override { return {}; }
  at::Tensor TokenLosses(const Batch&) override { return {}; }
  std::unique_ptr<KvCache> NewCache(int64_t, int64_t) override {
    return std::make_unique<NoCache>();
  }
  at::Tensor Step(const at::Tensor& ids, const at::Tensor&, KvCache&) override {
    return logits_.repeat({ids.size(0), 1});
  }
  std::vector<FusedLinear*> linears() override { return {}; }
  void SetAdaptersEnabled(bool) override {}
  void SetGradientCheckpointing(bool) override {}
  uint64_t FrozenChecksum() override { return 0; }
  std::vector<std::pair<std::string, int64_t>> BytesByCategory() override { return {}; }

 private:
  at::Tensor logits_;
  ModelConfig config_;
};

// Share of each token among 4,000 draws.
std::vector<double> Shares(const std::vector<float>& probabilities, double temperature,
                           double top_p, int64_t top_k) {
  std::vector<float> logits;
  for (float p : probabilities) logits.push_back(std::log(p));
  FixedModel model(logits);
  GenerateOptions options = Greedy(1);
  options.settings.set_temperature(temperature);
  options.settings.set_top_p(top_p);
  options.settings.set_top_k(top_k);
  std::vector<double> shares(probabilities.size());
  const std::vector<Ids> prompts(4000, Ids{0});
  for (const Ids& answer : Generate(model, prompts, options))
    shares[static_cast<size_t>(answer.at(0))] += 1.0 / 4000;
  return shares;
}

TEST(SamplingTest, DrawsWithTheProbabilitiesAskedFor) {
  using testing::DoubleNear;
  constexpr double kNear = 0.03;  // four standard deviations of a share of 4,000 draws
  EXPECT_THAT(Shares({0.1f, 0.5f, 0.15f, 0.25f}, 1, 1, 0),
              ElementsAre(DoubleNear(0.1, kNear), DoubleNear(0.5, kNear), DoubleNear(0.15, kNear),
                          DoubleNear(0.25, kNear)));
  // Top-p 0.6: 0.5 is below it, so 0.25 still stays; the rest goes.
  EXPECT_THAT(Shares({0.1f, 0.5f, 0.15f, 0.25f}, 1, 0.6, 0),
              ElementsAre(0, DoubleNear(2.0 / 3, kNear), 0, DoubleNear(1.0 / 3, kNear)));
  EXPECT_THAT(Shares({0.1f, 0.5f, 0.15f, 0.25f}, 1, 1, 3),
              ElementsAre(0, DoubleNear(0.5 / 0.9, kNear), DoubleNear(0.15 / 0.9, kNear),
                          DoubleNear(0.25 / 0.9, kNear)));
  // Temperature 0.5 squares the odds.
  EXPECT_THAT(Shares({0.2f, 0.8f}, 0.5, 1, 0),
              ElementsAre(DoubleNear(1.0 / 17, kNear), DoubleNear(16.0 / 17, kNear)));
}

}  // namespace
}  // namespace finetuned
