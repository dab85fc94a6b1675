#include "server/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/metrics/job_metrics.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Sets every metric once, so that each has a series.
void Fill(Metrics& metrics) {
  const auto& definitions = MetricDefinitions();
  for (size_t i = 0; i < definitions.size(); ++i) {
    const auto id = static_cast<MetricId>(i);
    const std::vector<std::string> labels(definitions[i].labels.size(), "x");
    switch (definitions[i].kind) {
      case MetricKind::kCounter:
        metrics.Add(id, 1, labels);
        break;
      case MetricKind::kGauge:
        metrics.Set(id, 1, labels);
        break;
      case MetricKind::kHistogram:
        metrics.Observe(id, 1, labels);
        break;
    }
  }
}

v1::JobEvent State(v1::JobState to, int64_t seconds, int attempt = 1) {
  v1::JobEvent event;
  event.mutable_time()->set_seconds(seconds);
  event.mutable_state()->set_to(to);
  event.mutable_state()->set_attempt(attempt);
  return event;
}

TEST(Metrics, TheTableFollowsTheNamingRules) {
  std::set<std::string> names;
  const std::set<std::string> units = {"seconds", "bytes", "total", "ratio", "info"};
  const std::set<std::string> labels = {"version", "state", "reason", "stage",  "kind",
                                        "job",     "split", "gpu",    "method", "code"};
  for (const MetricDefinition& definition : MetricDefinitions()) {
    const std::string name = definition.name;
    EXPECT_TRUE(names.insert(name).second) << name << " is there twice";
    EXPECT_TRUE(std::regex_match(name, std::regex("(finetuned|process)_[a-z_]+"))) << name;
    EXPECT_EQ(definition.kind == MetricKind::kCounter, name.ends_with("_total")) << name;
    EXPECT_EQ(definition.kind == MetricKind::kHistogram, !definition.buckets.empty()) << name;
    EXPECT_STRNE(definition.help, "") << name;
    for (const std::string& label : definition.labels)
      EXPECT_TRUE(labels.count(label)) << name << " " << label;
  }
}

TEST(Metrics, PromtoolFindsNothing) {
  Metrics metrics;
  Fill(metrics);
  const std::string path = ::testing::TempDir() + "/metrics.txt";
  std::ofstream(path) << metrics.Text();
  const int status = std::system(absl::StrCat("promtool check metrics < ", path).c_str());
  EXPECT_EQ(WEXITSTATUS(status), 0) << "promtool check metrics < " << path;
}

TEST(Metrics, ValuesAppearUnderTheirLabels) {
  Metrics metrics;
  metrics.Add(MetricId::kGrpcRequests, 2, {"GetJob", "OK"});
  metrics.Set(MetricId::kTrainLoss, 1.5, {"ft-1"});
  metrics.Observe(MetricId::kStageDuration, 70, {"TRAINING"});
  const std::string text = metrics.Text();
  EXPECT_THAT(text, HasSubstr("finetuned_grpc_requests_total{code=\"OK\",method=\"GetJob\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("finetuned_train_loss{job=\"ft-1\"} 1.5\n"));
  EXPECT_THAT(
      text,
      HasSubstr("finetuned_stage_duration_seconds_bucket{stage=\"TRAINING\",le=\"300\"} 1\n"));
  // Metrics without labels are there from the start.
  EXPECT_THAT(text, HasSubstr("finetuned_watchers 0\n"));
  metrics.Remove(MetricId::kTrainLoss, {"ft-1"});
  EXPECT_THAT(metrics.Text(), Not(HasSubstr("ft-1")));
}

TEST(Metrics, TheExporterSaysWhenItsPortIsTaken) {
  Metrics first, second;
  int scrapes = 0;
  first.SetBeforeScrape([&] { ++scrapes; });
  ASSERT_TRUE(first.Serve("127.0.0.1:0").ok());
  ASSERT_GT(first.port(), 0);
  const std::string address = absl::StrCat("127.0.0.1:", first.port());
  absl::Status status = second.Serve(address);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(address));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--metrics-listen"));
  first.StopServing();
  EXPECT_EQ(first.port(), 0);
  EXPECT_EQ(scrapes, 0);
}

TEST(ProcessMetrics, ReadsThisProcess) {
  Metrics metrics;
  ProcessMetrics process;
  process.Update(metrics);
  const std::string text = metrics.Text();
  std::smatch match;
  ASSERT_TRUE(
      std::regex_search(text, match, std::regex("process_resident_memory_bytes ([0-9.e+]+)")));
  EXPECT_GT(std::stod(match[1]), 1e6);
  ASSERT_TRUE(std::regex_search(text, match, std::regex("process_start_time_seconds ([0-9.e+]+)")));
  EXPECT_NEAR(std::stod(match[1]), absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch()), 300);
  ASSERT_TRUE(std::regex_search(text, match, std::regex("process_open_fds ([0-9]+)")));
  EXPECT_GE(std::stoi(match[1]), 3);
}

class JobMetricsTest : public ::testing::Test {
 protected:
  void Event(const std::string& job, const v1::JobEvent& event) {
    jobs_.OnEvent(job, event.SerializeAsString());
  }
  void Train(const std::string& job, double loss, int64_t tokens) {
    v1::JobEvent event;
    event.mutable_metrics()->set_loss(loss);
    event.mutable_metrics()->set_trained_tokens(tokens);
    event.mutable_metrics()->set_step_seconds(0.5);
    Event(job, event);
  }
  Metrics metrics_;
  JobMetrics jobs_{&metrics_};
};

TEST_F(JobMetricsTest, OneJobFromSubmissionToItsEnd) {
  Event("a", State(v1::VALIDATING, 1000));
  Event("a", State(v1::QUEUED, 1010));
  Event("a", State(v1::STARTING, 1040));
  Train("a", 3.0, 100);
  Train("a", 2.0, 250);
  EXPECT_THAT(metrics_.Text(), HasSubstr("finetuned_train_loss{job=\"a\"} 2\n"));
  v1::JobEvent evaluation;
  evaluation.mutable_evaluation()->set_model("tuned");
  evaluation.mutable_evaluation()->mutable_response()->set_loss(1.25);
  Event("a", evaluation);
  EXPECT_THAT(metrics_.Text(), HasSubstr("finetuned_eval_loss{job=\"a\"} 1.25\n"));
  v1::JobEvent result;
  result.mutable_result()->set_predicted_peak_bytes(1000);
  result.mutable_result()->set_peak_device_bytes(1010);
  Event("a", result);
  Event("a", State(v1::SUCCEEDED, 1100));
  const std::string text = metrics_.Text();
  EXPECT_THAT(text,
              HasSubstr("finetuned_jobs_finished_total{reason=\"NONE\",state=\"SUCCEEDED\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("finetuned_queue_wait_seconds_sum 30\n"));
  EXPECT_THAT(text, HasSubstr("finetuned_job_duration_seconds_sum 100\n"));
  EXPECT_THAT(text, HasSubstr("finetuned_tokens_total{kind=\"trained\"} 250\n"));
  EXPECT_THAT(text, HasSubstr("finetuned_memory_prediction_error_ratio_bucket{le=\"0.02\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("job=\"a\"")));
  // What a worker still says after the end does not bring the series back.
  Train("a", 2.0, 260);
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("job=\"a\"")));
}

TEST_F(JobMetricsTest, AFailureCarriesItsReason) {
  Event("a", State(v1::VALIDATING, 1000));
  v1::JobEvent failure;
  failure.mutable_failure()->set_reason(v1::NAN_LOSS);
  Event("a", failure);
  Event("a", State(v1::FAILED, 1001));
  EXPECT_THAT(metrics_.Text(),
              HasSubstr("finetuned_jobs_finished_total{reason=\"NAN_LOSS\",state=\"FAILED\"} 1\n"));
}

TEST_F(JobMetricsTest, AnAttemptThatStartsLowerCountsNoTokenTwice) {
  v1::Job stored;
  stored.set_job_id("a");
  stored.set_state(v1::RUNNING);
  stored.mutable_metrics()->set_trained_tokens(1000);
  jobs_.Seed({stored});
  Train("a", 1, 1200);
  Train("a", 1, 900);
  Train("a", 1, 1000);
  EXPECT_THAT(metrics_.Text(), HasSubstr("finetuned_tokens_total{kind=\"trained\"} 300\n"));
}

TEST_F(JobMetricsTest, SeriesOfJobsAreCapped) {
  const int count = JobMetrics::kMaxJobs + 50;
  auto series = [&] {
    int found = 0;
    const std::string text = metrics_.Text();
    for (absl::string_view line : absl::StrSplit(text, '\n'))
      found += absl::StartsWith(line, "finetuned_train_loss{");
    return found;
  };
  for (int i = 0; i < count; ++i) {
    Event(absl::StrCat("j", i), State(v1::RUNNING, 1));
    Train(absl::StrCat("j", i), 1, 1);
  }
  EXPECT_EQ(series(), static_cast<int>(JobMetrics::kMaxJobs));
  for (int i = 0; i < count; ++i) Event(absl::StrCat("j", i), State(v1::CANCELLED, 2));
  EXPECT_EQ(series(), 0);
}

TEST_F(JobMetricsTest, DamagedEventsAreIgnored) {
  jobs_.OnEvent("a", "\xff\xff\xff");
  EXPECT_THAT(metrics_.Text(), Not(HasSubstr("job=\"a\"")));
}

}  // namespace
}  // namespace finetuned
