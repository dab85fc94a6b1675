// The pure parts: spool files, retry table, starts, spec check, host memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "proto/base/file_util.h"
#include "server/supervisor/event_loop.h"
#include "server/supervisor/host_memory.h"
#include "server/supervisor/job_controller.h"
#include "server/supervisor/reply.h"
#include "server/supervisor/retry_policy.h"
#include "server/supervisor/spec_check.h"
#include "server/supervisor/spool.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

std::string SpoolOf(int records) {
  std::string bytes;
  for (int i = 1; i <= records; ++i) {
    v1::SpoolRecord record;
    record.set_spool_seq(i);
    record.mutable_event()->mutable_log()->set_text(std::string(static_cast<size_t>(i * 37), 'x'));
    AppendSpoolRecord(record, &bytes);
  }
  return bytes;
}

TEST(Spool, RoundTripAndEveryTornTail) {
  const std::string bytes = SpoolOf(8);
  EXPECT_EQ(ParseSpool(bytes).records.size(), 8u);
  EXPECT_TRUE(ParseSpool(bytes).tail.ok());
  size_t before = 0;
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    const SpoolContents contents = ParseSpool(std::string_view(bytes).substr(0, cut));
    EXPECT_GE(contents.records.size(), before);
    before = contents.records.size();
    for (size_t i = 0; i < contents.records.size(); ++i) {
      EXPECT_EQ(contents.records[i].spool_seq(), static_cast<int64_t>(i) + 1);
    }
  }
  EXPECT_EQ(before, 8u);
}

TEST(Spool, AGapEndsTheReading) {
  std::string bytes = SpoolOf(2);
  v1::SpoolRecord record;
  record.set_spool_seq(4);
  AppendSpoolRecord(record, &bytes);
  const SpoolContents contents = ParseSpool(bytes);
  EXPECT_EQ(contents.records.size(), 2u);
  EXPECT_THAT(contents.tail.message(), HasSubstr("spool_seq 4 instead of 3"));
}

TEST(Spool, RandomDamageNeverHangsOrReorders) {
  const uint32_t seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  const std::string good = SpoolOf(12);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = good;
    for (int i = 0; i < 1 + static_cast<int>(random() % 4); ++i) {
      const size_t at = random() % bytes.size();
      if (random() % 3 == 0) bytes.erase(at, random() % 50);
      if (bytes.empty()) break;
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    const SpoolContents contents = ParseSpool(bytes);
    for (size_t i = 0; i < contents.records.size(); ++i) {
      ASSERT_EQ(contents.records[i].spool_seq(), static_cast<int64_t>(i) + 1);
    }
  }
}

TEST(RetryPolicy, CoversEveryReasonOnce) {
  const auto* reasons = v1::FailureReason_descriptor();
  for (int i = 0; i < reasons->value_count(); ++i) {
    const auto reason = static_cast<v1::FailureReason>(reasons->value(i)->number());
    int rows = 0;
    for (const RetryRule& rule : RetryTable()) rows += rule.reason == reason;
    EXPECT_EQ(rows, reason == v1::FAILURE_REASON_UNSPECIFIED ? 0 : 1) << reasons->value(i)->name();
  }
  EXPECT_EQ(DecideAfterFailure(v1::INVALID_DATA, 1), AfterFailure::kFail);
  EXPECT_EQ(DecideAfterFailure(v1::WORKER_CRASHED, 4), AfterFailure::kRetry);
  EXPECT_EQ(DecideAfterFailure(v1::WORKER_CRASHED, 5), AfterFailure::kFail);
  EXPECT_EQ(DecideAfterFailure(v1::DISK_FULL, 99), AfterFailure::kWaitForDisk);
  EXPECT_EQ(DecideAfterFailure(v1::FAILURE_REASON_UNSPECIFIED, 1), AfterFailure::kFail);
}

TEST(RetryPolicy, DelayDoublesUpToAMinute) {
  const auto delay = [](int n) { return RetryDelay(n, absl::Seconds(1), absl::Seconds(60)); };
  EXPECT_EQ(delay(1), absl::Seconds(1));
  EXPECT_EQ(delay(2), absl::Seconds(2));
  EXPECT_EQ(delay(6), absl::Seconds(32));
  EXPECT_EQ(delay(7), absl::Seconds(60));
  EXPECT_EQ(delay(1000000), absl::Seconds(60));
}

TEST(HostMemory, MeminfoAndCgroup) {
  const char* meminfo = "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   20000000 kB\n";
  HostMemory memory = ParseHostMemory(meminfo, "max\n", "5\n");
  EXPECT_EQ(memory.total_bytes, 24000000ull << 10);
  EXPECT_EQ(memory.available_bytes, 20000000ull << 10);
  memory = ParseHostMemory(meminfo, "1073741824\n", "1000000000\n");
  EXPECT_EQ(memory.total_bytes, 1ull << 30);
  EXPECT_EQ(memory.available_bytes, (1ull << 30) - 1000000000);
  EXPECT_EQ(ParseHostMemory(meminfo, "10", "20").available_bytes, 0u);
  EXPECT_EQ(ParseHostMemory("garbage\n: :\nMemTotal: x kB", "", "").total_bytes, 0u);
  EXPECT_GT(ReadHostMemory().total_bytes, 0u);
}

TEST(EventLoop, KeepsOrderAndDropsAfterStop) {
  EventLoop loop;
  std::atomic<int> ticks = 0;
  loop.Start(absl::Milliseconds(1), [&] { ++ticks; });
  std::vector<int> order;
  absl::Notification last;
  for (int i = 0; i < 1000; ++i) loop.Post([&order, i] { order.push_back(i); });
  loop.Post([&] { last.Notify(); });
  last.WaitForNotification();
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  loop.Stop();
  EXPECT_GT(ticks, 0);
  // A reply in a task that is dropped still answers.
  absl::Status answer;
  loop.Post([reply = Reply<absl::Status>([&](absl::Status s) { answer = s; })] {
    reply(absl::OkStatus());
  });
  EXPECT_EQ(answer.code(), absl::StatusCode::kUnavailable);
}

TEST(WorkerSocketPath, ShortEnoughAndAlwaysTheSame) {
  EXPECT_EQ(WorkerSocketPath("/var/lib/finetuned"), "/var/lib/finetuned/worker.sock");
  const std::string deep = "/" + std::string(150, 'd');
  EXPECT_LT(WorkerSocketPath(deep).size(), 108u);
  EXPECT_EQ(WorkerSocketPath(deep), WorkerSocketPath(deep));
  EXPECT_NE(WorkerSocketPath(deep), WorkerSocketPath(deep + "e"));
}

PathLookup Everything() {
  return {.model = [](const std::string& p) -> absl::StatusOr<std::string> { return "/m/" + p; },
          .data = [](const std::string& p) -> absl::StatusOr<std::string> {
            if (p == "/etc/passwd") {
              return absl::PermissionDeniedError("/etc/passwd is outside the data roots");
            }
            return "/d/" + p;
          }};
}

v1::JobSpec Spec() {
  v1::JobSpec spec;
  spec.set_model_name_or_path("m");
  spec.mutable_dataset()->add_path("a.jsonl");
  return spec;
}

const v1::Problem* FindProblem(const SpecCheck& check, const std::string& field) {
  for (const v1::Problem& problem : check.problems) {
    if (problem.field() == field) return &problem;
  }
  return nullptr;
}

TEST(SpecCheck, DevicesFollowTheMachine) {
  SpecCheck check = CheckSpec(Spec(), std::nullopt, Everything(), {.has_gpu = false});
  ASSERT_NE(FindProblem(check, "devices"), nullptr);
  EXPECT_EQ(FindProblem(check, "devices")->severity(), v1::Problem::WARNING);
  EXPECT_EQ(check.plan.device(), "cpu");
  EXPECT_EQ(check.resolved.devices().value(), 0);

  v1::JobSpec spec = Spec();
  spec.mutable_devices()->set_value(1);
  check = CheckSpec(spec, std::nullopt, Everything(), {.gpu_problem = "driver too old"});
  EXPECT_EQ(FindProblem(check, "devices")->severity(), v1::Problem::ERROR);
  EXPECT_THAT(FindProblem(check, "devices")->message(), HasSubstr("driver too old"));
  check = CheckSpec(spec, std::nullopt, Everything(), {.has_gpu = true});
  EXPECT_EQ(FindProblem(check, "devices"), nullptr);
  EXPECT_EQ(check.plan.device(), "cuda:0");

  spec.mutable_devices()->set_auto_(true);
  EXPECT_EQ(CheckSpec(spec, std::nullopt, Everything(), {}).plan.device(), "cpu");
  EXPECT_EQ(CheckSpec(spec, std::nullopt, Everything(), {.has_gpu = true}).plan.device(), "cuda:0");
}

TEST(SpecCheck, PathsOutsideTheRootsNameTheirField) {
  v1::JobSpec spec = Spec();
  spec.mutable_dataset()->set_path(0, "/etc/passwd");
  const SpecCheck check = CheckSpec(spec, std::nullopt, Everything(), {});
  ASSERT_NE(FindProblem(check, "dataset.path"), nullptr);
  EXPECT_THAT(FindProblem(check, "dataset.path")->message(), HasSubstr("outside the data roots"));
}

TEST(SpecCheck, ALaterKindTakesOverWhatItDoesNotSet) {
  SourceJob source;
  source.job_dir = "/jobs/a";
  v1::JobSpec& from = *source.job.mutable_resolved_spec();
  from = CheckSpec(Spec(), std::nullopt, Everything(), {}).resolved;
  from.mutable_lora()->mutable_r()->set_value(8);
  from.mutable_export_()->clear_formats();
  from.mutable_export_()->add_formats("adapter");
  v1::JobSpec spec;
  spec.set_kind("export");
  spec.mutable_source()->set_job_id("a");
  spec.mutable_export_()->add_formats("gguf");
  const SpecCheck check = CheckSpec(spec, source, Everything(), {});
  EXPECT_EQ(check.resolved.model_name_or_path(), "m");
  EXPECT_EQ(check.resolved.lora().r().value(), 8);
  EXPECT_THAT(check.resolved.export_().formats(), ::testing::ElementsAre("gguf"));
  EXPECT_EQ(check.resolved.kind(), "export");
  EXPECT_EQ(check.plan.source_job_dir(), "/jobs/a");
  EXPECT_EQ(check.plan.dataset_paths_size(), 0);
}

TEST(SpecCheck, AnAdapterIsAnExportOrACheckpoint) {
  TempDir dir;
  EXPECT_FALSE(HasAdapter(dir.path()));
  std::filesystem::create_directories(dir / "checkpoints/step-00000010/adapter");
  EXPECT_FALSE(HasAdapter(dir.path()));
  ASSERT_TRUE(
      WriteFileAtomic(dir / "checkpoints/step-00000010/adapter/adapter_model.safetensors", "x")
          .ok());
  EXPECT_TRUE(HasAdapter(dir.path()));
}

TEST(SpecCheck, OverridesThatKeepFinishedStages) {
  EXPECT_TRUE(OverrideAllowed("export.formats", v1::EXPORTING));
  EXPECT_TRUE(OverrideAllowed("max_steps", v1::STAGE_UNSPECIFIED));
  EXPECT_FALSE(OverrideAllowed("lora.r", v1::TRAINING));
  EXPECT_TRUE(OverrideAllowed("lora.r", v1::PREPARING_DATA));
}

}  // namespace
}  // namespace finetuned
