// From the queue to a running worker: what the scheduler decided is made durable, then done.
#include <openssl/rand.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "proto/spec/spec.h"
#include "server/scheduler/scheduler.h"
#include "server/store/job_state.h"
#include "server/supervisor/controller_impl.h"
#include "server/supervisor/host_memory.h"

namespace finetuned {
namespace {

// 256 random bits.
std::string NewToken() {
  unsigned char random[32];
  RAND_bytes(random, sizeof(random));
  return absl::BytesToHexString({reinterpret_cast<char*>(random), sizeof(random)});
}

// "gpu0" → "cuda:0", as workers and attempts name it.
std::string ComputeDevice(const std::string& id) {
  return absl::StartsWith(id, "gpu") ? absl::StrCat("cuda:", id.substr(3)) : id;
}

v1::Failure TimedOut(int64_t limit_seconds) {
  v1::Failure failure;
  failure.set_reason(v1::TIMEOUT);
  failure.set_step(-1);
  failure.set_field("max_runtime");
  failure.set_message(absl::StrCat("earlier attempts have used up max_runtime (", limit_seconds,
                                   " s); rerun with a longer one to go on"));
  return failure;
}

// Seconds left of max_runtime; 0 without a limit, negative when it is used up.
int64_t RuntimeLeft(const v1::Job& job, const std::vector<Attempt>& attempts, absl::Time now) {
  if (job.resolved_spec().max_runtime().empty()) return 0;
  const auto limit = static_cast<int64_t>(ParseDurationSeconds(job.resolved_spec().max_runtime()));
  const int64_t left = limit - RuntimeSeconds(attempts, RerunAfterAttempt(job), now);
  return left > 0 ? left : -1;
}

}  // namespace

uint64_t JobController::Impl::ReservedBytes(const std::string& device) const {
  uint64_t bytes = 0;
  for (const auto& [token, worker] : workers_) {
    if (worker->attempt.device == device) bytes += worker->attempt.reserved_bytes;
  }
  return bytes;
}

std::vector<v1::Device> JobController::Impl::Devices() {
  std::vector<v1::Device> devices;
  v1::Device& cpu = devices.emplace_back();
  cpu.set_id("cpu");
  cpu.set_name("host memory");
  cpu.set_usable(true);
  cpu.set_reserved_bytes(ReservedBytes("cpu"));
  if (options_.host_memory_bytes > 0) {
    cpu.set_total_bytes(options_.host_memory_bytes);
    cpu.set_free_bytes(options_.host_memory_bytes);
  } else {
    // What our own workers use is planned already; it counts as free here and as reserved there.
    const HostMemory memory = ReadHostMemory();
    uint64_t ours = 0;
    for (const auto& [token, worker] : workers_) {
      if (worker->attempt.device != "cpu") continue;
      ours += std::min(worker->heartbeat.host_rss_bytes(), worker->attempt.reserved_bytes);
    }
    cpu.set_total_bytes(memory.total_bytes);
    cpu.set_free_bytes(std::min(memory.total_bytes, memory.available_bytes + ours));
  }
  for (const v1::Device& gpu : gpus_) {
    v1::Device& device = devices.emplace_back(gpu);
    device.set_reserved_bytes(ReservedBytes(ComputeDevice(gpu.id())));
  }
  return devices;
}

void JobController::Impl::Schedule() {
  if (!devices_known_) return;
  const absl::Time now = clock_->Now();
  ScheduleInput input;
  input.now = now;
  input.memory_fraction = options_.memory_fraction;
  input.max_cpu_jobs = options_.max_cpu_jobs;
  input.disk_free_bytes = FreeDiskBytes(options_.data_dir).value_or(0);
  input.disk_reserve_bytes = options_.disk_reserve_bytes;
  for (const auto& [id, job] : jobs_) {
    if (job.state() != v1::QUEUED || starting_.count(id) > 0) continue;
    JobView& view = input.jobs.emplace_back(ViewOf(job));
    view.process_ending = HasProcess(id);
    if (auto it = not_before_.find(id); it != not_before_.end()) view.not_before = it->second;
    for (JobView::Dependency& dependency : view.after) {
      auto it = dependency_states_.find(dependency.job_id);
      if (it != dependency_states_.end() && it->second != v1::JOB_STATE_UNSPECIFIED) {
        dependency.state = it->second;
      }
    }
  }
  if (input.jobs.empty()) return;
  const auto add_running = [&](const std::string& id, const std::string& device, uint64_t bytes,
                               absl::Time start) {
    RunningView running{id, device, bytes, 0, start};
    if (auto job = jobs_.find(id); job != jobs_.end()) {
      running.priority = job->second.priority();
      running.create_time = FromTimestamp(job->second.create_time());
    }
    input.running.push_back(std::move(running));
  };
  for (const auto& [token, worker] : workers_) {
    add_running(worker->attempt.job_id, worker->attempt.device, worker->attempt.reserved_bytes,
                worker->attempt.start_time);
  }
  for (const auto& [id, place] : starting_) add_running(id, place.first, place.second, now);
  for (const v1::Device& device : Devices()) {
    input.devices.push_back({.id = ComputeDevice(device.id()),
                             .total_bytes = device.total_bytes(),
                             .free_bytes = device.free_bytes(),
                             .usable = device.usable(),
                             .reason = device.reason()});
  }
  const Decisions decisions = finetuned::Schedule(input);
  for (const Decisions::Start& start : decisions.starts) {
    StartAttempt(start.job_id, start.device, start.reserve_bytes);
  }
  for (const Decisions::Waiting& waiting : decisions.waiting) {
    MarkPending(waiting.job_id, waiting.reason, waiting.detail);
  }
  for (const Decisions::Fail& fail : decisions.fails) {
    Change(
        fail.job_id,
        [failure = fail.failure](StoreWriter& store, v1::Job* job, absl::Time now) {
          if (job->state() != v1::QUEUED) return absl::OkStatus();
          return FailJob(store, job, failure, now);
        },
        std::nullopt);
  }
}

void JobController::Impl::MarkPending(const std::string& job_id, v1::PendingReason reason,
                                      const std::string& detail) {
  const v1::Job& cached = jobs_.at(job_id);
  if (cached.pending_reason() == reason && cached.pending_detail() == detail) return;
  // A detail changes with every byte of free memory; the store need not follow more than once in a
  // while.
  const absl::Time now = clock_->Now();
  absl::Time& last = pending_written_[job_id];
  if (cached.pending_reason() == reason && now - last < absl::Seconds(10)) return;
  last = now;
  Change(
      job_id,
      [reason, detail](StoreWriter& store, v1::Job* job, absl::Time) -> absl::Status {
        if (job->state() != v1::QUEUED) return absl::OkStatus();
        job->set_pending_reason(reason);
        job->set_pending_detail(detail);
        return store.UpdateJob(*job);
      },
      std::nullopt);
}

void JobController::Impl::StartAttempt(const std::string& job_id, const std::string& device,
                                       uint64_t bytes) {
  starting_[job_id] = {device, bytes};
  struct Started {
    v1::Job job;
    v1::JobState from = v1::JOB_STATE_UNSPECIFIED;
    Attempt attempt;
    int64_t runtime_left_seconds = 0;
    bool launch = false;
  };
  auto started = std::make_shared<Started>();
  Commit(
      [job_id, device, bytes, started, now = clock_->Now()](StoreWriter& store) -> absl::Status {
        FT_ASSIGN_OR_RETURN(v1::Job job, store.GetJob(job_id));
        started->from = job.state();
        started->job = job;
        if (job.state() != v1::QUEUED) return absl::OkStatus();  // cancelled or paused meanwhile
        FT_ASSIGN_OR_RETURN(const std::vector<Attempt> attempts, store.Attempts(job_id));
        started->runtime_left_seconds = RuntimeLeft(job, attempts, now);
        if (started->runtime_left_seconds < 0) {
          FT_RETURN_IF_ERROR(FailJob(store, &job,
                                     TimedOut(static_cast<int64_t>(
                                         ParseDurationSeconds(job.resolved_spec().max_runtime()))),
                                     now));
          started->job = job;
          return absl::OkStatus();
        }
        Attempt& attempt = started->attempt;
        attempt.job_id = job_id;
        attempt.number = job.attempt() + 1;
        attempt.token = NewToken();
        attempt.device = device;
        attempt.reserved_bytes = bytes;
        attempt.start_time = now;
        job.set_attempt(attempt.number);
        FT_RETURN_IF_ERROR(store.InsertAttempt(attempt));
        FT_RETURN_IF_ERROR(ChangeState(store, &job, v1::STARTING,
                                       absl::StrCat("attempt ", attempt.number, " on ", device),
                                       now));
        started->job = job;
        started->launch = true;
        return absl::OkStatus();
      },
      [this, job_id, started](absl::Status status) {
        starting_.erase(job_id);
        if (!status.ok()) return Log(v1::WARNING, job_id, status.ToString());
        if (started->launch) {
          LaunchAttempt(started->job, started->attempt, started->runtime_left_seconds);
        }
        OnCommitted(started->job, started->from);
      });
}

absl::Status JobController::Impl::WritePlan(const v1::Job& job, int64_t runtime_left_seconds,
                                            Worker* worker) {
  v1::JobSpec spec = job.resolved_spec();
  // Once more: a link below a root may have changed since the job was submitted.
  DeviceFacts facts;
  facts.has_gpu = worker->attempt.device != "cpu";
  SpecCheck check = CheckSpec(spec, std::nullopt, dependencies_.paths, facts);
  for (const v1::Problem& problem : check.problems) {
    if (problem.severity() == v1::Problem::WARNING) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(problem.field(), ": ", problem.message(),
                     problem.allowed().empty() ? "" : "; allowed: ", problem.allowed()));
  }
  v1::AttemptPlan& plan = worker->plan;
  plan = std::move(check.plan);
  plan.set_job_id(job.job_id());
  plan.set_attempt(worker->attempt.number);
  plan.set_job_dir(JobDirectory(options_.data_dir, job.job_id()));
  plan.set_cache_dir(options_.data_dir + "/cache");
  plan.set_submit_time_unix(job.create_time().seconds());
  plan.set_device(worker->attempt.device);
  plan.set_planned_bytes(worker->attempt.reserved_bytes);
  plan.set_predicted_peak_bytes(job.estimate().memory().device_peak_bytes());
  plan.set_runtime_left_seconds(runtime_left_seconds);
  plan.set_cpu_threads(options_.cpu_threads > 0 ? options_.cpu_threads : UsableProcessors());
  if (!spec.source().job_id().empty()) {
    plan.set_source_job_dir(JobDirectory(options_.data_dir, spec.source().job_id()));
  }
  if (auto it = job.metadata().find(kRerunStageKey); it != job.metadata().end()) {
    v1::Stage stage;
    if (v1::Stage_Parse(it->second, &stage)) plan.set_from_stage(stage);
  }
  if (auto it = job.metadata().find(kRerunCheckpointKey); it != job.metadata().end()) {
    int64_t step;
    if (absl::SimpleAtoi(it->second, &step)) plan.set_from_checkpoint_step(step);
  }
  FT_RETURN_IF_ERROR(MakeDirectories(worker->attempt_dir));
  return WriteFileAtomic(worker->attempt_dir + "/plan.pb", plan.SerializeAsString());
}

void JobController::Impl::LaunchAttempt(const v1::Job& job, const Attempt& attempt,
                                        int64_t runtime_left_seconds) {
  auto owned = std::make_unique<Worker>();
  Worker& worker = *owned;
  worker.attempt = attempt;
  worker.attempt_dir =
      absl::StrCat(JobDirectory(options_.data_dir, job.job_id()), "/attempt-", attempt.number);
  worker.last_seen = worker.last_progress = clock_->Now();
  workers_[attempt.token] = std::move(owned);
  absl::Status status = WritePlan(job, runtime_left_seconds, &worker);
  if (status.ok()) {
    auto process = dependencies_.launcher->Launch({.job_id = job.job_id(),
                                                   .attempt = attempt.number,
                                                   .token = attempt.token,
                                                   .attempt_dir = worker.attempt_dir,
                                                   .plan_path = worker.attempt_dir + "/plan.pb",
                                                   .device = attempt.device});
    status = process.status();
    if (process.ok()) worker.process = *process;
  }
  if (!status.ok()) {
    worker.kill_reason = IsDiskFull(status)                   ? v1::DISK_FULL
                         : absl::IsFailedPrecondition(status) ? v1::INVALID_SPEC
                                                              : v1::WORKER_CRASHED;
    worker.kill_message = absl::StrCat("the worker could not be started: ", status.message());
    return OnExit(attempt.token, ProcessExit());
  }
  worker.attempt.pid = worker.process.pid;
  worker.attempt.pid_start_ticks = worker.process.start_ticks;
  WatchWorker(worker);
  Commit(
      [attempt = worker.attempt](StoreWriter& store) -> absl::Status {
        FT_ASSIGN_OR_RETURN(Attempt stored, FindAttempt(store, attempt.job_id, attempt.number));
        stored.pid = attempt.pid;
        stored.pid_start_ticks = attempt.pid_start_ticks;
        return store.UpdateAttempt(stored);
      },
      [this, id = job.job_id()](absl::Status status) {
        if (!status.ok()) Log(v1::WARNING, id, status.ToString());
      });
}

}  // namespace finetuned
