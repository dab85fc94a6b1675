#include "server/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kGiB = uint64_t{1} << 30;

JobView Job(const std::string& id, uint64_t gib, int priority = 0, int created = 0,
            bool gpu = true) {
  JobView job;
  job.job_id = id;
  job.predicted_bytes = gib * kGiB;
  job.priority = priority;
  job.create_time = absl::FromUnixSeconds(created);
  job.wants_gpu = gpu;
  return job;
}

DeviceView Gpu(int index, uint64_t gib) {
  return {.id = absl::StrCat("cuda:", index), .total_bytes = gib * kGiB, .free_bytes = gib * kGiB};
}
DeviceView Cpu(uint64_t gib) {
  return {.id = "cpu", .total_bytes = gib * kGiB, .free_bytes = gib * kGiB};
}

ScheduleInput Input(std::vector<JobView> jobs, std::vector<DeviceView> devices) {
  ScheduleInput input;
  input.now = absl::FromUnixSeconds(1000);
  input.jobs = std::move(jobs);
  input.devices = std::move(devices);
  input.memory_fraction = 1.0;
  return input;
}

std::string Starts(const Decisions& decisions) {
  std::string text;
  for (const Decisions::Start& start : decisions.starts)
    absl::StrAppend(&text, start.job_id, "@", start.device, " ");
  return text;
}

const Decisions::Waiting& Waiting(const Decisions& decisions, const std::string& id) {
  for (const Decisions::Waiting& waiting : decisions.waiting) {
    if (waiting.job_id == id) return waiting;
  }
  ADD_FAILURE() << id << " does not wait";
  static const Decisions::Waiting none{};
  return none;
}

TEST(Scheduler, PriorityThenFirstInFirstOut) {
  auto input =
      Input({Job("late", 1, 0, 9), Job("early", 1, 0, 1), Job("urgent", 1, 5, 99)}, {Gpu(0, 80)});
  EXPECT_EQ(Starts(Schedule(input)), "urgent@cuda:0 early@cuda:0 late@cuda:0 ");
  input.devices[0].max_jobs = 1;
  const Decisions one = Schedule(input);
  EXPECT_EQ(Starts(one), "urgent@cuda:0 ");
  EXPECT_EQ(Waiting(one, "early").reason, v1::RESOURCES);
  EXPECT_EQ(Waiting(one, "early").detail, "all 1 place on cuda:0 are taken");
  EXPECT_EQ(Waiting(one, "late").reason, v1::PRIORITY);
  EXPECT_EQ(Waiting(one, "late").position, 2);
  EXPECT_EQ(Waiting(one, "late").jobs_ahead, 1);
}

TEST(Scheduler, MostRoomFirst) {
  auto input =
      Input({Job("a", 10), Job("b", 10, 0, 1), Job("c", 25, 0, 2)}, {Gpu(0, 30), Gpu(1, 40)});
  EXPECT_EQ(Starts(Schedule(input)), "a@cuda:1 b@cuda:0 c@cuda:1 ");
}

TEST(Scheduler, OneCpuJobAtATimeUnlessToldOtherwise) {
  auto input = Input({Job("a", 1, 0, 0, false), Job("b", 1, 0, 1, false), Job("g", 1)},
                     {Cpu(16), Gpu(0, 8)});
  EXPECT_EQ(Starts(Schedule(input)), "a@cpu g@cuda:0 ");
  input.max_cpu_jobs = 2;
  EXPECT_EQ(Starts(Schedule(input)), "a@cpu g@cuda:0 b@cpu ");
}

TEST(Scheduler, SaysWhatIsMissing) {
  auto input = Input({Job("a", 12, 0, 5, false)}, {Cpu(21)});
  input.max_cpu_jobs = 4;
  input.running = {{.job_id = "r", .device = "cpu", .reserved_bytes = 15 * kGiB}};
  const Decisions decisions = Schedule(input);
  EXPECT_EQ(Waiting(decisions, "a").reason, v1::RESOURCES);
  EXPECT_EQ(Waiting(decisions, "a").detail,
            "needs 12.0 GiB, 6.0 GiB of 21.0 GiB planned are free on cpu");
}

TEST(Scheduler, TooLargeForAnyDeviceFails) {
  auto input =
      Input({Job("gpu", 50), Job("cpu", 50, 0, 0, false)}, {Gpu(0, 24), Gpu(1, 48), Cpu(16)});
  input.memory_fraction = 0.5;
  const Decisions decisions = Schedule(input);
  ASSERT_EQ(decisions.fails.size(), 2u);
  const v1::Failure& cpu = decisions.fails[0].failure;
  EXPECT_EQ(cpu.reason(), v1::HOST_OUT_OF_MEMORY);
  EXPECT_EQ(cpu.message(),
            "needs 50.0 GiB at its peak, 8.0 GiB can be planned on cpu, the largest device for CPU "
            "jobs (0.5 of 16.0 GiB)");
  const v1::Failure& gpu = decisions.fails[1].failure;
  EXPECT_EQ(gpu.reason(), v1::OUT_OF_MEMORY);
  EXPECT_EQ(gpu.memory_requested_bytes(), 50 * kGiB);
  EXPECT_EQ(gpu.memory_available_bytes(), 24 * kGiB);
  EXPECT_THAT(gpu.message(), HasSubstr("cuda:1, the largest GPU"));
  EXPECT_GT(gpu.suggestions_size(), 0);
}

TEST(Scheduler, ForeignMemoryMakesAJobWaitNotFail) {
  auto input = Input({Job("a", 40)}, {Gpu(0, 80)});
  input.devices[0].free_bytes = 10 * kGiB;
  const Decisions decisions = Schedule(input);
  EXPECT_TRUE(decisions.fails.empty());
  EXPECT_EQ(Waiting(decisions, "a").detail,
            "needs 40.0 GiB, 10.0 GiB of 10.0 GiB planned are free on cuda:0");
}

TEST(Scheduler, ItsOwnMemoryFractionLowersTheServers) {
  auto input = Input({Job("a", 30)}, {Gpu(0, 80)});
  input.jobs[0].memory_fraction = 0.25;
  EXPECT_EQ(Schedule(input).fails.size(), 1u);
  input.jobs[0].memory_fraction = 0.5;
  EXPECT_EQ(Starts(Schedule(input)), "a@cuda:0 ");
}

TEST(Scheduler, HeadIsNotDelayedBySmallJobs) {
  // 80 GiB, 50 run and will end; the head needs 60. 20 fit beside it, 21 do not.
  auto input =
      Input({Job("head", 60, 5), Job("small", 15), Job("more", 5, 0, 1), Job("over", 1, 0, 2)},
            {Gpu(0, 80)});
  input.running = {{.job_id = "r", .device = "cuda:0", .reserved_bytes = 50 * kGiB, .priority = 9}};
  const Decisions decisions = Schedule(input);
  EXPECT_EQ(Starts(decisions), "small@cuda:0 more@cuda:0 ");
  EXPECT_EQ(Waiting(decisions, "head").reason, v1::RESOURCES);
  EXPECT_EQ(Waiting(decisions, "over").reason, v1::PRIORITY);
  EXPECT_THAT(Waiting(decisions, "over").detail, HasSubstr("would delay job head"));
  // The next round counts what was let in before.
  input.jobs = {Job("head", 60, 5), Job("over", 1, 0, 2)};
  input.running.push_back({.job_id = "small", .device = "cuda:0", .reserved_bytes = 20 * kGiB});
  EXPECT_EQ(Starts(Schedule(input)), "");
}

TEST(Scheduler, ADeviceTheHeadCannotUseIsFree) {
  auto input = Input({Job("head", 60, 5), Job("small", 21)}, {Gpu(0, 80), Gpu(1, 24)});
  input.running = {{.job_id = "r", .device = "cuda:0", .reserved_bytes = 50 * kGiB, .priority = 9}};
  EXPECT_EQ(Starts(Schedule(input)), "small@cuda:1 ");
}

TEST(Scheduler, HeldDependentBackOffAndDiskHoldBackNobody) {
  auto input = Input({}, {Gpu(0, 80)});
  JobView held = Job("held", 80, 9), after = Job("after", 80, 8), later = Job("later", 80, 7),
          disk = Job("disk", 80, 6), ending = Job("ending", 80, 5);
  held.held = true;
  after.after = {{"x", v1::SUCCEEDED}, {"y", v1::RUNNING}};
  later.not_before = input.now + absl::Seconds(30);
  disk.disk_bytes = 11 * kGiB;
  ending.process_ending = true;
  input.jobs = {held, after, later, disk, ending, Job("ok", 80)};
  input.disk_free_bytes = 20 * kGiB;
  input.disk_reserve_bytes = 10 * kGiB;
  const Decisions decisions = Schedule(input);
  EXPECT_EQ(Starts(decisions), "ok@cuda:0 ");
  EXPECT_EQ(Waiting(decisions, "held").reason, v1::HELD);
  EXPECT_EQ(Waiting(decisions, "after").reason, v1::DEPENDENCY);
  EXPECT_EQ(Waiting(decisions, "after").detail, "waits for job y, which is RUNNING");
  EXPECT_EQ(Waiting(decisions, "later").earliest, later.not_before);
  EXPECT_EQ(Waiting(decisions, "disk").reason, v1::DISK);
  EXPECT_EQ(Waiting(decisions, "disk").detail,
            "needs 11.0 GiB of disk beside the 10.0 GiB that are kept free, 20.0 GiB are there");
  EXPECT_EQ(Waiting(decisions, "ending").reason, v1::RESOURCES);
  input.disk_free_bytes =
      5 * kGiB;  // below the reserve: nothing starts, not even what writes nothing
  EXPECT_EQ(Starts(Schedule(input)), "");
  input.disk_free_bytes = 21 * kGiB;
  input.now = later.not_before;
  EXPECT_EQ(Starts(Schedule(input)), "later@cuda:0 ");
}

TEST(Scheduler, AFailedDependencyFails) {
  JobView failed = Job("a", 1), gone = Job("b", 1, 0, 1), held = Job("c", 1, 0, 2);
  failed.after = {{"x", v1::FAILED}};
  gone.after = {{"y", std::nullopt}};
  held.after = {{"z", v1::CANCELLED}};
  held.held = true;
  const Decisions decisions = Schedule(Input({failed, gone, held}, {Gpu(0, 80)}));
  ASSERT_EQ(decisions.fails.size(), 3u);
  EXPECT_EQ(decisions.fails[0].failure.field(), "after");
  EXPECT_EQ(decisions.fails[0].cause, Decisions::Fail::Cause::kDependency);
  EXPECT_THAT(decisions.fails[0].failure.message(), HasSubstr("job x, which is FAILED"));
  EXPECT_THAT(decisions.fails[1].failure.message(), HasSubstr("job y, which has been deleted"));
  EXPECT_THAT(decisions.fails[2].failure.message(), HasSubstr("CANCELLED"));
}

TEST(Scheduler, NoUsableDevice) {
  auto input = Input({Job("a", 1)}, {Gpu(0, 80), Cpu(16)});
  input.devices[0].usable = false;
  input.devices[0].reason = "driver 450 is older than 580";
  EXPECT_EQ(Waiting(Schedule(input), "a").detail,
            "no usable GPU is there now (cuda:0: driver 450 is older than 580)");
}

TEST(Scheduler, ViewOfAJob) {
  v1::Job job;
  job.set_job_id("j");
  job.set_priority(3);
  job.set_held(true);
  job.add_after("x");
  job.mutable_create_time()->set_seconds(5);
  job.mutable_resolved_spec()->mutable_devices()->set_value(0);
  job.mutable_resolved_spec()->set_memory_fraction(0.5);
  job.mutable_estimate()->mutable_memory()->set_device_peak_bytes(10);
  job.mutable_estimate()->mutable_memory()->set_host_peak_bytes(20);
  job.mutable_estimate()->mutable_memory()->set_disk_bytes(30);
  JobView view = ViewOf(job);
  EXPECT_EQ(view.predicted_bytes, 20u);
  EXPECT_FALSE(view.wants_gpu);
  EXPECT_EQ(view.disk_bytes, 30u);
  EXPECT_EQ(view.memory_fraction, 0.5);
  EXPECT_TRUE(view.held);
  ASSERT_EQ(view.after.size(), 1u);
  EXPECT_FALSE(view.after[0].state.has_value());
  EXPECT_EQ(view.create_time, absl::FromUnixSeconds(5));
  job.mutable_resolved_spec()->mutable_devices()->set_value(1);
  view = ViewOf(job);
  EXPECT_TRUE(view.wants_gpu);
  EXPECT_EQ(view.predicted_bytes, 10u);
}

TEST(Scheduler, ByteTexts) {
  EXPECT_EQ(ByteText(512), "512 bytes");
  EXPECT_EQ(ByteText(37 << 20), "37 MiB");
  EXPECT_EQ(ByteText(11 * kGiB + kGiB / 5), "11.2 GiB");
}

}  // namespace
}  // namespace finetuned
