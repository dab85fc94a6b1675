// metrics.jsonl across attempts: a killed writer's torn line, repeated steps, values that are not
// finite.
#include "worker/job/history.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <fstream>
#include <limits>
#include <memory>

#include "proto/base/file_util.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

class HistoryTest : public testing::Test {
 protected:
  std::unique_ptr<History> Open() {
    auto history = History::Open(dir_ / "metrics.jsonl", dir_ / "evaluations.jsonl");
    EXPECT_TRUE(history.ok()) << history.status();
    return std::move(history).value();
  }
  static v1::TrainingMetrics Step(int64_t step, double loss) {
    v1::TrainingMetrics metrics;
    metrics.set_step(step);
    metrics.set_loss(loss);
    return metrics;
  }
  static std::vector<double> Losses(const History& history) {
    std::vector<double> losses;
    for (const auto& m : history.metrics()) losses.push_back(m.loss());
    return losses;
  }
  std::vector<std::string> Lines() {
    std::ifstream file(dir_ / "metrics.jsonl");
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);) lines.push_back(line);
    return lines;
  }

  TempDir dir_;
};

TEST_F(HistoryTest, ReadsBackWhatWasAddedToTheLastBit) {
  const std::vector<double> losses = {1.0 / 3, 3.8643789088472409, 5e-324,
                                      std::numeric_limits<double>::max(), -0.0};
  {
    const auto history = Open();
    for (size_t i = 0; i < losses.size(); ++i)
      ASSERT_TRUE(history->Add(Step(static_cast<int64_t>(i) + 1, losses[i])).ok());
    v1::EvaluationResult evaluation;
    evaluation.set_model("tuned");
    evaluation.set_step(3);
    ASSERT_TRUE(history->Add(evaluation).ok());
  }
  const auto history = Open();
  EXPECT_EQ(Losses(*history), losses);
  ASSERT_EQ(history->evaluations().size(), 1u);
  EXPECT_EQ(history->evaluations()[0].model(), "tuned");
  EXPECT_EQ(Lines().size(), losses.size());
}

TEST_F(HistoryTest, KeepsValuesThatAreNotFinite) {
  ASSERT_TRUE(Open()->Add(Step(1, std::numeric_limits<double>::quiet_NaN())).ok());
  ASSERT_TRUE(Open()->Add(Step(2, std::numeric_limits<double>::infinity())).ok());
  ASSERT_TRUE(Open()->Add(Step(3, 1)).ok());
  const auto losses = Losses(*Open());
  ASSERT_EQ(losses.size(), 3u);
  EXPECT_TRUE(std::isnan(losses[0]));
  EXPECT_TRUE(std::isinf(losses[1]));
}

TEST_F(HistoryTest, RepeatedStepsReplaceThoseOfTheEarlierAttempt) {
  {
    const auto history = Open();
    for (int i = 1; i <= 5; ++i) ASSERT_TRUE(history->Add(Step(i, i)).ok());
  }
  const auto history = Open();
  ASSERT_TRUE(history->Add(Step(3, 30)).ok());
  ASSERT_TRUE(history->Add(Step(4, 40)).ok());
  EXPECT_EQ(Losses(*history), (std::vector<double>{1, 2, 30, 40}));
  EXPECT_EQ(Losses(*Open()), (std::vector<double>{1, 2, 30, 40}));
  EXPECT_EQ(Lines().size(), 4u);
}

TEST_F(HistoryTest, ALineCutAnywhereCostsItselfOnly) {
  {
    const auto history = Open();
    for (int i = 1; i <= 3; ++i) ASSERT_TRUE(history->Add(Step(i, 0.5 + i)).ok());
  }
  const std::string whole = *ReadFile(dir_ / "metrics.jsonl");
  const size_t last = whole.rfind('\n', whole.size() - 2) + 1;
  for (size_t cut = last + 1; cut + 1 < whole.size(); ++cut) {
    std::ofstream(dir_ / "metrics.jsonl", std::ios::binary) << whole.substr(0, cut);
    const auto history = Open();
    EXPECT_EQ(Losses(*history), (std::vector<double>{1.5, 2.5})) << cut;
    // What follows is appended after a whole line.
    ASSERT_TRUE(history->Add(Step(3, 9)).ok());
    EXPECT_EQ(Losses(*Open()), (std::vector<double>{1.5, 2.5, 9})) << cut;
  }
  for (const std::string& tail : {std::string("\0\0\0\0", 4), std::string("null\n"),
                                  std::string("[1]\n"), std::string("\xff\xfe\n")}) {
    std::ofstream(dir_ / "metrics.jsonl", std::ios::binary) << whole << tail;
    EXPECT_EQ(Losses(*Open()), (std::vector<double>{1.5, 2.5, 3.5}));
    EXPECT_EQ(*ReadFile(dir_ / "metrics.jsonl"), whole);
  }
}

TEST_F(HistoryTest, SurvivesKillsOfTheWriter) {
  for (int attempt = 0; attempt < 8; ++attempt) {
    const pid_t child = fork();
    if (child == 0) {
      auto history = History::Open(dir_ / "metrics.jsonl", dir_ / "evaluations.jsonl");
      for (int64_t step = static_cast<int64_t>((*history)->metrics().size()) + 1;; ++step)
        (void)(*history)->Add(Step(step, 1.0 / static_cast<double>(step)));
    }
    usleep(20000);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const auto history = Open();
    for (size_t i = 0; i < history->metrics().size(); ++i) {
      ASSERT_EQ(history->metrics()[i].step(), static_cast<int64_t>(i) + 1);
      ASSERT_EQ(history->metrics()[i].loss(), 1.0 / static_cast<double>(i + 1));
    }
  }
  EXPECT_GT(Open()->metrics().size(), 8u);
}

}  // namespace
}  // namespace finetuned
