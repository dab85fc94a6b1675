// The scheduler over thousands of rounds of random clusters: what must hold always.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "server/scheduler/scheduler.h"

namespace finetuned {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

struct RunningJob {
  RunningView view;
  int ends;  // round
};

class Cluster {
 public:
  explicit Cluster(unsigned seed) : random_(seed) {
    input_.memory_fraction = 0.5 + 0.05 * static_cast<double>(Pick(11));
    input_.max_cpu_jobs = 1 + Pick(2);
    input_.devices.push_back({.id = "cpu", .total_bytes = 16 * kGiB, .free_bytes = 16 * kGiB});
    for (int i = Pick(4); i > 0; --i) {
      const uint64_t bytes = (8 + 8 * static_cast<uint64_t>(Pick(10))) * kGiB;
      input_.devices.push_back({.id = absl::StrCat("cuda:", i),
                                .total_bytes = bytes,
                                .free_bytes = bytes,
                                .max_jobs = Pick(3)});
    }
  }

  int Pick(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }

  void Submit() {
    JobView job;
    job.job_id = absl::StrCat("job-", ++submitted_);
    job.priority = Pick(3);
    job.create_time = absl::FromUnixSeconds(submitted_ / 2);  // pairs of equal time
    job.wants_gpu = Pick(2) == 0;
    // Sizes that fit somewhere, so that only the queue decides.
    uint64_t most = 0;
    for (const DeviceView& device : input_.devices) {
      if ((device.id != "cpu") == job.wants_gpu) most = std::max(most, Planned(device.total_bytes));
    }
    if (most == 0) return;  // no GPU in this cluster
    job.predicted_bytes = 1 + random_() % most;
    waiting_[job.job_id] = job;
    waited_[job.job_id] = 0;
  }

  void Step(int round) {
    for (auto it = running_.begin(); it != running_.end();)
      it = it->ends <= round ? running_.erase(it) : std::next(it);
    input_.now = absl::FromUnixSeconds(round);
    input_.jobs.clear();
    input_.running.clear();
    for (const auto& [id, job] : waiting_) input_.jobs.push_back(job);
    std::shuffle(input_.jobs.begin(), input_.jobs.end(),
                 random_);  // the order of the input must not matter
    for (const RunningJob& run : running_) input_.running.push_back(run.view);
    const Decisions decisions = Schedule(input_);
    CheckDeterministic(decisions);
    ASSERT_TRUE(decisions.fails.empty());
    ASSERT_EQ(decisions.starts.size() + decisions.waiting.size(), input_.jobs.size());
    for (const Decisions::Start& start : decisions.starts) {
      const JobView job = waiting_.at(start.job_id);
      CheckFirstInFirstOut(job, start);
      running_.push_back(
          {{job.job_id, start.device, start.reserve_bytes, job.priority, job.create_time},
           round + 1 + Pick(12)});
      waiting_.erase(start.job_id);
    }
    for (const Decisions::Waiting& waiting : decisions.waiting) {
      longest_wait_ = std::max(longest_wait_, ++waited_[waiting.job_id]);
      EXPECT_FALSE(waiting.detail.empty());
    }
    CheckNoOvercommit();
  }

  size_t waiting() const { return waiting_.size(); }
  int longest_wait() const { return longest_wait_; }

 private:
  uint64_t Planned(uint64_t bytes) const {
    return static_cast<uint64_t>(static_cast<double>(bytes) * input_.memory_fraction);
  }

  void CheckDeterministic(const Decisions& first) {
    ScheduleInput again = input_;
    std::shuffle(again.jobs.begin(), again.jobs.end(), random_);
    const Decisions second = Schedule(again);
    ASSERT_EQ(first.starts.size(), second.starts.size());
    for (size_t i = 0; i < first.starts.size(); ++i) {
      EXPECT_EQ(first.starts[i].job_id, second.starts[i].job_id);
      EXPECT_EQ(first.starts[i].device, second.starts[i].device);
    }
    ASSERT_EQ(first.waiting.size(), second.waiting.size());
    for (size_t i = 0; i < first.waiting.size(); ++i)
      EXPECT_EQ(first.waiting[i].detail, second.waiting[i].detail);
  }

  void CheckNoOvercommit() {
    for (const DeviceView& device : input_.devices) {
      uint64_t bytes = 0;
      int jobs = 0;
      for (const RunningJob& run : running_) {
        if (run.view.device != device.id) continue;
        bytes += run.view.reserved_bytes;
        ++jobs;
      }
      EXPECT_LE(bytes, Planned(device.free_bytes)) << device.id;
      const int most =
          device.id == "cpu" && device.max_jobs == 0 ? input_.max_cpu_jobs : device.max_jobs;
      EXPECT_TRUE(most == 0 || jobs <= most) << device.id;
    }
  }

  // A job that wants no more than the started one, on the same kind of device, and ranks before it,
  // does not wait.
  void CheckFirstInFirstOut(const JobView& started, const Decisions::Start& start) {
    for (const auto& [id, job] : waiting_) {
      if (job.wants_gpu != started.wants_gpu || job.predicted_bytes > started.predicted_bytes)
        continue;
      const auto rank = [](const JobView& j) {
        return std::make_tuple(-j.priority, j.create_time, j.job_id);
      };
      EXPECT_FALSE(rank(job) < rank(started))
          << id << " was overtaken by " << started.job_id << " on " << start.device;
    }
  }

  std::mt19937 random_;
  ScheduleInput input_;
  std::map<std::string, JobView> waiting_;
  std::map<std::string, int> waited_;
  std::vector<RunningJob> running_;
  int submitted_ = 0;
  int longest_wait_ = 0;
};

TEST(Simulation, NeverOvercommitsKeepsTheOrderAndEndsWithAnEmptyQueue) {
  const unsigned base = std::random_device{}();
  for (unsigned i = 0; i < 150; ++i) {
    SCOPED_TRACE(absl::StrCat("seed ", base + i));
    Cluster cluster(base + i);
    int round = 0;
    for (; round < 80; ++round) {
      if (cluster.Pick(3) > 0) cluster.Submit();
      cluster.Step(round);
    }
    // Without new jobs the queue drains: nothing waits for ever.
    for (; cluster.waiting() > 0 && round < 5000; ++round) cluster.Step(round);
    EXPECT_EQ(cluster.waiting(), 0u);
    if (::testing::Test::HasFailure()) break;
  }
  std::printf("seeds %u to %u\n", base, base + 149);
}

// One job that needs the whole device, and small ones of its priority without end: it starts as
// soon as those that ran before it have ended.
TEST(Simulation, SmallJobsWithoutEndDoNotStarveALargeOne) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  ScheduleInput input;
  input.memory_fraction = 1.0;
  input.devices = {{.id = "cuda:0", .total_bytes = 80 * kGiB, .free_bytes = 80 * kGiB}};
  std::vector<RunningJob> running;
  std::vector<JobView> waiting;
  int large_started = -1;
  for (int round = 0; round < 100 && large_started < 0; ++round) {
    running.erase(std::remove_if(running.begin(), running.end(),
                                 [&](const RunningJob& run) { return run.ends <= round; }),
                  running.end());
    for (int i = 0; i < 4; ++i) {
      JobView small;
      small.job_id = absl::StrCat("small-", round, "-", i);
      small.create_time = absl::FromUnixSeconds(round);
      small.predicted_bytes = (5 + random() % 20) * kGiB;
      small.wants_gpu = true;
      waiting.push_back(small);
    }
    if (round == 10) {
      JobView large;
      large.job_id = "large";
      large.create_time = absl::FromUnixSeconds(0);  // submitted first, held until now
      large.predicted_bytes = 80 * kGiB;
      large.wants_gpu = true;
      waiting.push_back(large);
    }
    input.jobs = waiting;
    input.running.clear();
    for (const RunningJob& run : running) input.running.push_back(run.view);
    for (const Decisions::Start& start : Schedule(input).starts) {
      const auto it = std::find_if(waiting.begin(), waiting.end(),
                                   [&](const JobView& j) { return j.job_id == start.job_id; });
      running.push_back(
          {{it->job_id, start.device, start.reserve_bytes, it->priority, it->create_time},
           round + 1 + static_cast<int>(random() % 5)});
      if (start.job_id == "large") large_started = round;
      waiting.erase(it);
    }
  }
  EXPECT_GE(large_started, 10);
  EXPECT_LE(large_started, 15) << "jobs run for at most five rounds";
}

}  // namespace
}  // namespace finetuned
