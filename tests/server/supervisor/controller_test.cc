// The controller with real processes: verbs, retries, adoption.
#include <signal.h>

#include <atomic>
#include <thread>

#include "proto/base/file_util.h"
#include "proto/errors/rpc_errors.h"
#include "server/supervisor/job_changes.h"
#include "tests/server/supervisor/controller_fixture.h"

namespace finetuned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Every step from 1 to `last` is there, and only what followed the last checkpoint of a lost
// attempt is there twice.
void ExpectSteps(const std::vector<std::pair<int, int64_t>>& steps, int64_t last) {
  int64_t expected = 1;
  int attempt = steps.empty() ? 0 : steps.front().first;
  for (const auto& [number, step] : steps) {
    if (number != attempt) {
      EXPECT_LE(step, expected);
      EXPECT_EQ((step - 1) % 5, 0) << "an attempt goes on behind a checkpoint";
      attempt = number;
      expected = step;
    }
    EXPECT_EQ(step, expected);
    ++expected;
  }
  EXPECT_EQ(expected, last + 1);
}

TEST_F(ControllerTest, RunsToSuccess) {
  const std::string id = Submit("steps=12");
  const v1::Job job = WaitFor(id, v1::SUCCEEDED);
  EXPECT_EQ(job.state(), v1::SUCCEEDED);
  EXPECT_EQ(job.result().steps(), 12);
  EXPECT_EQ(job.metrics().step(), 12);
  EXPECT_EQ(job.estimate().memory().device_peak_bytes(), 100u << 20);
  EXPECT_TRUE(job.has_start_time() && job.has_end_time());
  EXPECT_THAT(States(id),
              ElementsAre(v1::VALIDATING, v1::QUEUED, v1::STARTING, v1::RUNNING, v1::SUCCEEDED));
  ExpectSteps(Steps(id), 12);
  EXPECT_EQ(LastAttempt(id).outcome, "succeeded");
  EXPECT_EQ(LastAttempt(id).token.size(), 64u);
  v1::AttemptPlan plan;
  ASSERT_TRUE(
      plan.ParseFromString(ReadFile(JobDirectory(dir_.path(), id) + "/attempt-1/plan.pb").value()));
  EXPECT_EQ(plan.model_path(), "/models/smollm2");
  EXPECT_EQ(plan.dataset_paths(0), "/data/train.jsonl");
  EXPECT_EQ(plan.device(), "cpu");
  EXPECT_EQ(plan.spec().learning_rate(), 2e-4);
}

TEST_F(ControllerTest, AKilledWorkerGoesOnFromItsCheckpoint) {
  const std::string id = Submit("steps=40 step_ms=15");
  WaitForStep(id, 12);
  const Attempt attempt = LastAttempt(id);
  ASSERT_TRUE(runner_->Kill({attempt.pid, attempt.pid_start_ticks}, SIGKILL).ok());
  const v1::Job job = WaitFor(id, v1::SUCCEEDED);
  EXPECT_EQ(job.attempt(), 2);
  EXPECT_FALSE(job.has_failure());
  ExpectSteps(Steps(id), 40);
  bool told = false;
  for (const v1::JobEvent& event : Events(id)) {
    if (!event.has_failure()) continue;
    told = true;
    EXPECT_EQ(event.failure().reason(), v1::WORKER_CRASHED);
    EXPECT_THAT(event.failure().message(), HasSubstr("SIGKILL"));
    EXPECT_EQ(event.level(), v1::WARNING);
  }
  EXPECT_TRUE(told);
}

TEST_F(ControllerTest, TheLogTailOfACrashIsInItsEvent) {
  const std::string id = Submit("steps=10 crash_at=7");
  WaitFor(id, v1::SUCCEEDED);
  std::string causes;
  for (const v1::JobEvent& event : Events(id)) {
    if (event.has_failure()) causes = event.failure().causes(0);
  }
  EXPECT_THAT(causes, HasSubstr("?? about to crash at step 7"));
}

TEST_F(ControllerTest, CrashesWithoutProgressEndTheJob) {
  const std::string id = Submit("steps=10 crash_always=3");
  const v1::Job job = WaitFor(id, v1::FAILED);
  EXPECT_EQ(job.failure().reason(), v1::WORKER_CRASHED);
  EXPECT_EQ(job.attempt(), 5);
  EXPECT_THAT(job.failure().causes(job.failure().causes_size() - 1),
              HasSubstr("5 attempts in a row"));
  Events(id);
}

TEST_F(ControllerTest, BadInputIsNeverRetried) {
  const std::string id = Submit("steps=10 fail_at=3 reason=INVALID_DATA");
  const v1::Job job = WaitFor(id, v1::FAILED);
  EXPECT_EQ(job.attempt(), 1);
  EXPECT_EQ(job.failure().message(), "told to fail");
  const std::string other = Submit("invalid=1");
  const v1::Job refused = WaitFor(other, v1::FAILED);
  EXPECT_EQ(refused.attempt(), 0);
  EXPECT_EQ(refused.failure().reason(), v1::INVALID_DATA);
  EXPECT_EQ(refused.failure().field(), "dataset.path");
}

TEST_F(ControllerTest, AServerThatComesBackAdoptsItsWorkers) {
  const std::string id = Submit("steps=60 step_ms=20");
  WaitForStep(id, 5);
  const int64_t pid = LastAttempt(id).pid;
  StopServer();
  absl::SleepFor(absl::Milliseconds(300));
  StartServer();
  const v1::Job job = WaitFor(id, v1::SUCCEEDED);
  EXPECT_EQ(job.attempt(), 1);
  EXPECT_EQ(LastAttempt(id).pid, pid);
  const auto steps = Steps(id);
  EXPECT_EQ(steps.size(), 60u);
  ExpectSteps(steps, 60);
}

TEST_F(ControllerTest, AWorkerThatEndedWhileTheServerWasAwayCounts) {
  const std::string id = Submit("steps=20 step_ms=20");
  WaitForStep(id, 3);
  const Attempt attempt = LastAttempt(id);
  StopServer();
  LocalProcessRunner observer;
  while (observer.IsAlive({attempt.pid, attempt.pid_start_ticks})) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  StartServer();
  const v1::Job job = WaitFor(id, v1::SUCCEEDED);
  EXPECT_EQ(job.attempt(), 1);
  EXPECT_EQ(job.result().verdict(), "improved");
  EXPECT_EQ(Steps(id).size(), 20u);
}

TEST_F(ControllerTest, ServerAndWorkerKilledTogether) {
  const std::string id = Submit("steps=30 step_ms=20");
  WaitForStep(id, 8);
  const Attempt attempt = LastAttempt(id);
  StopServer();
  absl::SleepFor(absl::Milliseconds(100));
  LocalProcessRunner killer;
  ASSERT_TRUE(killer.Kill({attempt.pid, attempt.pid_start_ticks}, SIGKILL).ok());
  StartServer();
  const v1::Job job = WaitFor(id, v1::SUCCEEDED);
  EXPECT_EQ(job.attempt(), 2);
  ExpectSteps(Steps(id), 30);
}

TEST_F(ControllerTest, PauseAndResume) {
  const std::string id = Submit("steps=30 step_ms=15");
  WaitForStep(id, 4);
  auto answer = Pause(id);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->state(), v1::PAUSING);
  WaitFor(id, v1::PAUSED);
  EXPECT_EQ(LastAttempt(id).outcome, "paused");
  answer = Pause(id);
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(answer.status().message(), HasSubstr("PAUSED"));
  EXPECT_EQ(ReasonOf(answer.status()), "WRONG_STATE");
  ASSERT_TRUE(Resume(id).ok());
  WaitFor(id, v1::SUCCEEDED);
  EXPECT_EQ(Steps(id).size(), 30u);  // no step was repeated
}

TEST_F(ControllerTest, CancelRunningAndQueued) {
  const std::string id = Submit("steps=1000 step_ms=15");
  WaitForStep(id, 2);
  ASSERT_TRUE(Cancel(id).ok());
  WaitFor(id, v1::CANCELLED);
  EXPECT_EQ(Cancel(id).status().code(), absl::StatusCode::kFailedPrecondition);

  v1::CreateJobRequest held = Request("steps=3");
  held.set_held(true);
  const std::string other = Create(held)->job_id();
  WaitUntil(other, [](const v1::Job& job) { return job.pending_reason() == v1::HELD; });
  auto answer = Cancel(other);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->state(), v1::CANCELLED);
  EXPECT_EQ(Cancel("job-none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(ControllerTest, ADeafWorkerIsKilledOnCancel) {
  StopServer();
  options_.cancel_grace = absl::Milliseconds(100);
  options_.kill_grace = absl::Milliseconds(100);
  StartServer();
  const std::string id = Submit("steps=1000 step_ms=15 deaf=1");
  WaitForStep(id, 2);
  ASSERT_TRUE(Cancel(id).ok());
  WaitFor(id, v1::CANCELLED);
  EXPECT_EQ(Get(id).attempt(), 1);
}

TEST_F(ControllerTest, AStalledWorkerIsReplaced) {
  StopServer();
  options_.stall_timeout = absl::Milliseconds(400);
  StartServer();
  const v1::Job job = WaitFor(Submit("steps=20 hang_at=7"), v1::FAILED);
  EXPECT_EQ(job.failure().reason(), v1::STALLED);
  // The first attempt made a checkpoint, the three after it nothing.
  EXPECT_EQ(job.attempt(), 4);
}

TEST_F(ControllerTest, ASilentWorkerIsReplaced) {
  StopServer();
  options_.lease = absl::Milliseconds(400);
  StartServer();
  const v1::Job job = WaitFor(Submit("steps=20 silent_at=3"), v1::FAILED);
  EXPECT_EQ(job.failure().reason(), v1::WORKER_LOST);
  EXPECT_EQ(job.attempt(), 5);
  EXPECT_THAT(job.failure().message(), HasSubstr("has not been heard of"));
}

TEST_F(ControllerTest, AWorkerOfAnOlderAttemptIsTurnedAway) {
  const std::string id = Submit("steps=100 step_ms=20");
  WaitForStep(id, 6);
  const Attempt old = LastAttempt(id);
  StopServer();
  {
    // As if this attempt had been given up while its worker was out of reach.
    auto store = OpenSqliteStore({.path = dir_ / "jobs.db"});
    ASSERT_TRUE(store.ok());
    IngestResult result;
    ASSERT_TRUE((*store)
                    ->WriteSync([&](StoreWriter& s) {
                      return LoseAttempt(s, id, old.number, LossReport(), absl::Now(), &result);
                    })
                    .ok());
    (*store)->Close();
  }
  StartServer();
  const v1::Job job = WaitFor(id, v1::SUCCEEDED);
  EXPECT_EQ(job.attempt(), 2);
  EXPECT_FALSE(runner_->IsAlive({old.pid, old.pid_start_ticks}));
  bool second = false;
  for (const v1::JobEvent& event : Events(id)) {
    second |= event.attempt() == 2;
    EXPECT_EQ(event.attempt() == 2, second);
  }
}

TEST_F(ControllerTest, AnswersComeAlsoWhenTheServerStops) {
  std::atomic<int> answers = 0;
  for (int i = 0; i < 50; ++i) {
    controller_->Create(Request("steps=3"), [&](JobOr) { ++answers; });
    v1::ValidateJobRequest validate;
    *validate.mutable_spec() = Request("").spec();
    controller_->Validate(validate, [&](absl::StatusOr<v1::ValidateJobResponse>) { ++answers; });
  }
  controller_->Shutdown();  // the processes of the queries are still there
  store_->Close();
  EXPECT_EQ(answers, 100);
}

TEST_F(ControllerTest, ASignalFromOutsideOnlyDelaysAJob) {
  const std::string id = Submit("steps=30 step_ms=15");
  WaitForStep(id, 4);
  const Attempt attempt = LastAttempt(id);
  ASSERT_TRUE(runner_->Kill({attempt.pid, attempt.pid_start_ticks}, SIGTERM).ok());
  const v1::Job job = WaitFor(id, v1::SUCCEEDED);
  EXPECT_EQ(job.attempt(), 2);
  EXPECT_EQ(Steps(id).size(), 30u);
}

TEST_F(ControllerTest, TwentyCallsWithOneRequestIdMakeOneJob) {
  v1::CreateJobRequest request = Request("steps=3");
  request.set_request_id("7c7f8b1e");
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::vector<std::string> ids;
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([&] {
      auto job = Create(request);
      std::lock_guard lock(mutex);
      ids.push_back(job.ok() ? job->job_id() : job.status().ToString());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(ids, ::testing::Each(ids.front()));
  EXPECT_THAT(ids.front(), ::testing::StartsWith("job-"));
  int64_t count = 0;
  store_->ReadSync([&](StoreReader& store) {
    const auto counts = store.CountByState();
    ASSERT_TRUE(counts.ok());
    for (const auto& [state, n] : *counts) count += n;
  });
  EXPECT_EQ(count, 1);

  request.mutable_spec()->set_learning_rate(1e-4);
  auto other = Create(request);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(other.status().message(), HasSubstr(ids.front()));
}

TEST_F(ControllerTest, DependenciesWaitAndSayForWhat) {
  v1::CreateJobRequest first = Request("steps=5");
  first.set_held(true);
  const std::string a = Create(first)->job_id();
  v1::CreateJobRequest second = Request("steps=2");
  second.add_after(a);
  const std::string b = Create(second)->job_id();
  const v1::Job waiting =
      WaitUntil(b, [](const v1::Job& job) { return job.pending_reason() == v1::DEPENDENCY; });
  EXPECT_THAT(waiting.pending_detail(), HasSubstr(a));
  EXPECT_EQ(Await<absl::Status>([&](auto done) { controller_->Delete(a, done); }).code(),
            absl::StatusCode::kFailedPrecondition);
  v1::UpdateJobRequest release;
  release.set_job_id(a);
  release.set_held(false);
  ASSERT_TRUE(Update(release).ok());
  WaitFor(b, v1::SUCCEEDED);
  EXPECT_EQ(Get(a).state(), v1::SUCCEEDED);
  second.set_after(0, "job-none");
  EXPECT_EQ(Create(second).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ControllerTest, AdmissionIsByPredictedMemory) {
  StopServer();
  options_.host_memory_bytes = 150 << 20;  // room for one job of 100 MiB
  StartServer();
  const std::string a = Submit("steps=60 step_ms=20");
  WaitFor(a, v1::RUNNING);
  const std::string b = Submit("steps=3");
  const std::string c = Submit("steps=3");
  EXPECT_THAT(WaitUntil(b, [](const v1::Job& j) { return j.pending_reason() == v1::RESOURCES; })
                  .pending_detail(),
              HasSubstr("needs 100 MiB"));
  EXPECT_THAT(WaitUntil(c, [](const v1::Job& j) { return j.pending_reason() == v1::PRIORITY; })
                  .pending_detail(),
              HasSubstr(b));
  auto queue =
      Await<absl::StatusOr<v1::GetQueueResponse>>([&](auto done) { controller_->GetQueue(done); });
  ASSERT_TRUE(queue.ok());
  ASSERT_EQ(queue->entries_size(), 3);
  EXPECT_EQ(queue->entries(0).job_id(), a);
  EXPECT_EQ(queue->entries(1).job_id(), b);
  EXPECT_EQ(queue->entries(2).jobs_ahead(), 1);
  // A higher priority overtakes.
  v1::UpdateJobRequest update;
  update.set_job_id(c);
  update.set_priority(10);
  ASSERT_TRUE(Update(update).ok());
  WaitFor(b, v1::SUCCEEDED);
  EXPECT_LT(FromTimestamp(Get(c).start_time()), FromTimestamp(Get(b).start_time()));
}

TEST_F(ControllerTest, RerunFromAStageInTheSameJob) {
  const std::string id = Submit("steps=10 fail_at=8 reason=EXPORT_FAILED");
  WaitFor(id, v1::FAILED);
  v1::RerunJobRequest rerun;
  rerun.set_job_id(id);
  rerun.set_minimal(true);
  EXPECT_EQ(Rerun(rerun).status().code(), absl::StatusCode::kUnimplemented);
  rerun.set_minimal(false);
  rerun.set_from_stage(v1::EXPORTING);
  rerun.add_overrides("learning_rate=1e-4");
  EXPECT_EQ(Rerun(rerun).status().code(), absl::StatusCode::kInvalidArgument);
  rerun.set_overrides(0, "export.formats=[adapter, merged]");
  auto answer = Rerun(rerun);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->state(), v1::QUEUED);
  const v1::Job job = WaitFor(id, v1::SUCCEEDED);
  EXPECT_EQ(job.attempt(), 2);
  EXPECT_EQ(job.resolved_spec().export_().formats_size(), 2);
  EXPECT_EQ(Steps(id).size(), 7u);  // no training step was repeated
  EXPECT_EQ(job.metadata().count("finetuned.rerun.from_stage"), 0u);
}

TEST_F(ControllerTest, ProblemsAreAllTold) {
  v1::CreateJobRequest request = Request("steps=3");
  request.mutable_spec()->set_model_name_or_path("missing");
  request.mutable_spec()->set_learning_rate(5);
  auto answer = Create(request);
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kInvalidArgument);
  std::vector<std::string> fields;
  for (const v1::Problem& problem : ProblemsOf(answer.status())) {
    if (problem.severity() == v1::Problem::ERROR) fields.push_back(problem.field());
  }
  EXPECT_THAT(fields, ::testing::UnorderedElementsAre("learning_rate", "model_name_or_path"));

  v1::ValidateJobRequest validate;
  *validate.mutable_spec() = Request("invalid=1").spec();
  auto validated = Await<absl::StatusOr<v1::ValidateJobResponse>>(
      [&](auto done) { controller_->Validate(validate, done); });
  ASSERT_TRUE(validated.ok()) << validated.status();
  bool found = false;
  for (const v1::Problem& p : validated->problems()) found |= p.reason() == v1::INVALID_DATA;
  EXPECT_TRUE(found);
  // A verb that makes a job out of an adapter that is not there.
  v1::CreateJobRequest merge = Request("");
  merge.mutable_spec()->set_kind("merge");
  const std::string source = Submit("steps=2");
  merge.mutable_spec()->mutable_source()->set_job_id(source);
  EXPECT_EQ(Create(merge).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ControllerTest, AnUncheckedJobIsCheckedByTheNextServer) {
  StopServer();
  {
    auto store = OpenSqliteStore({.path = dir_ / "jobs.db"});
    ASSERT_TRUE(store.ok());
    v1::Job job;
    job.set_job_id("job-early");
    job.set_request_id("r");
    job.set_state(v1::VALIDATING);
    *job.mutable_submitted_spec() = Request("steps=3").spec();
    job.mutable_create_time()->set_seconds(1);
    ASSERT_TRUE((*store)->WriteSync([&](StoreWriter& s) { return s.InsertJob(job); }).ok());
    (*store)->Close();
  }
  StartServer();
  EXPECT_EQ(WaitFor("job-early", v1::SUCCEEDED).state(), v1::SUCCEEDED);
}

}  // namespace
}  // namespace finetuned
