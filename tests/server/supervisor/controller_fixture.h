// A controller with a real store and real processes (fake_worker), which a test can stop and start
// like a server.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "server/launcher/launcher.h"
#include "server/launcher/local_process_runner.h"
#include "server/store/job_state.h"
#include "server/store/job_store.h"
#include "server/supervisor/job_controller.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {

class ControllerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.data_dir = dir_.path();
    options_.tick = absl::Milliseconds(20);
    options_.heartbeat_interval = absl::Milliseconds(50);
    options_.retry_delay = absl::Milliseconds(20);
    options_.retry_delay_max = absl::Milliseconds(50);
    options_.host_memory_bytes = uint64_t{4} << 30;
    options_.disk_reserve_bytes = 0;
    options_.max_cpu_jobs = 0;
    StartServer();
  }

  void StartServer() {
    auto store = OpenSqliteStore({.path = dir_ / "jobs.db"});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    runner_ = std::make_unique<LocalProcessRunner>();
    launcher_ = std::make_unique<LocalLauncher>(
        runner_.get(), LocalLauncherOptions{.worker_path = FAKE_WORKER,
                                            .socket_path = WorkerSocketPath(dir_.path()),
                                            .environment = WorkerEnvironment()});
    JobController::Dependencies dependencies;
    dependencies.store = store_.get();
    dependencies.launcher = launcher_.get();
    dependencies.clock = &clock_;
    dependencies.paths.model = [](const std::string& path) -> absl::StatusOr<std::string> {
      if (path == "missing") return absl::NotFoundError("model \"missing\": nothing there");
      return "/models/" + path;
    };
    dependencies.paths.data = [](const std::string& path) -> absl::StatusOr<std::string> {
      return "/data/" + path;
    };
    ControllerHooks hooks;
    hooks.log = [](v1::Level, const std::string& id, const std::string& text) {
      std::cerr << "  [" << id << "] " << text << "\n";
    };
    auto controller = JobController::Start(options_, dependencies, hooks);
    ASSERT_TRUE(controller.ok()) << controller.status();
    controller_ = *std::move(controller);
  }
  // Workers stay.
  void StopServer() {
    controller_.reset();
    launcher_.reset();
    runner_.reset();
    store_->Close();
    store_.reset();
  }
  void TearDown() override {
    if (controller_) {
      for (const v1::Job& job : JobsWithAttempts()) {
        auto attempt = LastAttempt(job.job_id());
        runner_->Kill({attempt.pid, attempt.pid_start_ticks}, 9).IgnoreError();
      }
      StopServer();
    }
  }

  // Calls a verb and waits for its answer.
  template <typename Answer, typename Verb>
  static Answer Await(Verb verb) {
    absl::Notification answered;
    Answer answer = absl::UnknownError("no answer");
    verb([&](Answer a) {
      answer = std::move(a);
      answered.Notify();
    });
    EXPECT_TRUE(answered.WaitForNotificationWithTimeout(absl::Seconds(30)));
    return answer;
  }
  using JobOr = absl::StatusOr<v1::Job>;
  JobOr Create(const v1::CreateJobRequest& request) {
    return Await<JobOr>([&](auto done) { controller_->Create(request, done); });
  }
  std::string Submit(const std::string& run_name) {
    auto job = Create(Request(run_name));
    EXPECT_TRUE(job.ok()) << job.status();
    return job.ok() ? job->job_id() : "";
  }
  JobOr Cancel(const std::string& id) {
    return Await<JobOr>([&](auto done) { controller_->Cancel(id, done); });
  }
  JobOr Pause(const std::string& id) {
    return Await<JobOr>([&](auto done) { controller_->Pause(id, done); });
  }
  JobOr Resume(const std::string& id) {
    return Await<JobOr>([&](auto done) { controller_->Resume(id, done); });
  }
  JobOr Rerun(const v1::RerunJobRequest& request) {
    return Await<JobOr>([&](auto done) { controller_->Rerun(request, done); });
  }
  JobOr Update(const v1::UpdateJobRequest& request) {
    return Await<JobOr>([&](auto done) { controller_->Update(request, done); });
  }

  static v1::CreateJobRequest Request(const std::string& run_name) {
    v1::CreateJobRequest request;
    request.mutable_spec()->set_model_name_or_path("smollm2");
    request.mutable_spec()->mutable_dataset()->add_path("train.jsonl");
    request.mutable_spec()->set_run_name(run_name);
    return request;
  }

  v1::Job Get(const std::string& id) {
    v1::Job job;
    store_->ReadSync([&](StoreReader& store) {
      auto found = store.GetJob(id);
      if (found.ok()) job = *found;
    });
    return job;
  }
  Attempt LastAttempt(const std::string& id) {
    Attempt last;
    store_->ReadSync([&](StoreReader& store) {
      auto attempts = store.Attempts(id);
      if (attempts.ok() && !attempts->empty()) last = attempts->back();
    });
    return last;
  }
  std::vector<v1::Job> JobsWithAttempts() {
    std::vector<v1::Job> jobs;
    store_->ReadSync([&](StoreReader& store) {
      auto found = store.JobsInStates({v1::STARTING, v1::RUNNING, v1::PAUSING, v1::CANCELLING});
      if (found.ok()) jobs = *found;
    });
    return jobs;
  }
  // Fails the test when the condition does not come true in time.
  template <typename Condition>
  v1::Job WaitUntil(const std::string& id, Condition condition) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    v1::Job job = Get(id);
    while (!condition(job) && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(5));
      job = Get(id);
    }
    EXPECT_TRUE(condition(job)) << job.ShortDebugString();
    return job;
  }
  v1::Job WaitFor(const std::string& id, v1::JobState state) {
    return WaitUntil(id, [state](const v1::Job& job) {
      return job.state() == state || (IsFinal(job.state()) && !IsFinal(state));
    });
  }
  v1::Job WaitForStep(const std::string& id, int64_t step) {
    return WaitUntil(id, [step](const v1::Job& job) { return job.metrics().step() >= step; });
  }

  // All events; fails the test on a gap or repeat of seq.
  std::vector<v1::JobEvent> Events(const std::string& id) {
    std::vector<v1::JobEvent> events;
    store_->ReadSync([&](StoreReader& store) {
      auto bytes = store.EventsAfter(id, 0, 100000);
      ASSERT_TRUE(bytes.ok()) << bytes.status();
      for (const auto& event : *bytes) {
        events.emplace_back().ParseFromString(*event);
        EXPECT_EQ(events.back().seq(), static_cast<int64_t>(events.size()));
      }
    });
    EXPECT_EQ(Get(id).last_seq(), static_cast<int64_t>(events.size()));
    return events;
  }
  // Training steps in the order of the log, each with its attempt.
  std::vector<std::pair<int, int64_t>> Steps(const std::string& id) {
    std::vector<std::pair<int, int64_t>> steps;
    for (const v1::JobEvent& event : Events(id)) {
      if (event.has_metrics()) steps.emplace_back(event.attempt(), event.metrics().step());
    }
    return steps;
  }
  std::vector<v1::JobState> States(const std::string& id) {
    std::vector<v1::JobState> states;
    for (const v1::JobEvent& event : Events(id)) {
      if (event.has_state()) states.push_back(event.state().to());
    }
    return states;
  }

  TempDir dir_;
  SystemClock clock_;
  ControllerOptions options_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<LocalProcessRunner> runner_;
  std::unique_ptr<LocalLauncher> launcher_;
  std::unique_ptr<JobController> controller_;
};

}  // namespace finetuned
