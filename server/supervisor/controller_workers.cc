// Workers: registration, sessions, records, loss, adoption, commands.
#include <signal.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "server/store/job_state.h"
#include "server/supervisor/controller_impl.h"
#include "server/supervisor/retry_policy.h"
#include "server/supervisor/spool.h"

namespace finetuned {
namespace {

// Records of one transaction; more wait for the next.
constexpr size_t kMaxBatch = 256;
constexpr int kLogTailLines = 20;
constexpr size_t kLogTailBytes = 4000;

std::string LogTail(const std::string& path) {
  auto log = ReadFile(path);
  if (!log.ok()) return "";
  absl::string_view text(*log);
  if (text.size() > kLogTailBytes) text.remove_prefix(text.size() - kLogTailBytes);
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  std::string tail;
  for (size_t i = lines.size() - std::min<size_t>(lines.size(), kLogTailLines); i < lines.size();
       ++i) {
    absl::StrAppend(&tail, lines[i], "\n");
  }
  return ToUtf8(tail);
}

v1::ServerMessage CommandMessage(v1::Command::Kind kind) {
  v1::ServerMessage message;
  message.mutable_command()->set_kind(kind);
  return message;
}

v1::ServerMessage AckMessage(int64_t spool_seq) {
  v1::ServerMessage message;
  message.set_acknowledged_spool_seq(spool_seq);
  return message;
}

absl::Status Fenced() {
  return absl::AbortedError("this attempt is over; a newer one has the job or it has ended");
}

}  // namespace

Worker* JobController::Impl::FindWorker(const std::string& token) {
  auto it = workers_.find(token);
  return it == workers_.end() ? nullptr : it->second.get();
}

Worker* JobController::Impl::LiveWorkerOf(const std::string& job_id) {
  for (auto& [token, worker] : workers_) {
    if (worker->attempt.job_id == job_id && !worker->over) return worker.get();
  }
  return nullptr;
}

bool JobController::Impl::HasProcess(const std::string& job_id) const {
  return std::any_of(workers_.begin(), workers_.end(),
                     [&](const auto& entry) { return entry.second->attempt.job_id == job_id; });
}

void JobController::Impl::Adopt(const Attempt& attempt, bool progressed) {
  auto owned = std::make_unique<Worker>();
  Worker& worker = *owned;
  worker.attempt = attempt;
  worker.process = {attempt.pid, attempt.pid_start_ticks};
  worker.attempt_dir =
      absl::StrCat(JobDirectory(options_.data_dir, attempt.job_id), "/attempt-", attempt.number);
  worker.progressed = progressed;
  worker.last_seen = worker.last_progress = clock_->Now();
  if (auto plan = ReadFile(worker.attempt_dir + "/plan.pb"); plan.ok()) {
    worker.plan.ParseFromString(*plan);
  }
  workers_[attempt.token] = std::move(owned);
  Log(v1::INFO, attempt.job_id,
      absl::StrCat("attempt ", attempt.number, " of an earlier server: ",
                   attempt.pid == 0 ? "pid unknown, waiting for its worker"
                                    : absl::StrCat("watching process ", attempt.pid)));
  SyncCommand(worker);
  // Pid unknown and no plan: no worker can have begun, and the watch says so at once. With a plan
  // one may have: the lease waits for it to register.
  if (attempt.pid != 0 || worker.plan.job_id().empty()) {
    WatchWorker(worker);
  }
}

void JobController::Impl::WatchWorker(Worker& worker) {
  dependencies_.launcher->Watch(
      worker.process, [this, loop = loop_, token = worker.attempt.token](ProcessExit exit) {
        loop->Post([this, token, exit] { OnExit(token, exit); });
      });
}

void JobController::Impl::OnRegister(const v1::RegisterRequest& request,
                                     Reply<absl::StatusOr<v1::RegisterResponse>> reply) {
  Worker* worker = FindWorker(request.attempt_token());
  if (worker == nullptr) {
    ReadThen<bool>(
        [token = request.attempt_token()](StoreReader& store) {
          auto attempt = store.AttemptByToken(token);
          return attempt.ok() && attempt->has_value();
        },
        [reply](bool known) {
          reply(known ? Fenced() : absl::PermissionDeniedError("unknown attempt token"));
        });
    return;
  }
  if (worker->over || worker->losing || worker->attempt.job_id != request.job_id() ||
      worker->attempt.number != request.attempt()) {
    return reply(Fenced());
  }
  worker->last_seen = worker->last_progress = clock_->Now();
  if (worker->process.pid == 0) {
    // Launched by an earlier server that died before it could note the pid.
    if (auto ticks = ProcessStartTicks(request.pid()); ticks.ok()) {
      worker->process = {request.pid(), *ticks};
      worker->attempt.pid = request.pid();
      worker->attempt.pid_start_ticks = *ticks;
      WatchWorker(*worker);
    }
  }
  auto result = std::make_shared<IngestResult>();
  auto acknowledged = std::make_shared<int64_t>(0);
  Commit(
      [result, acknowledged, attempt = worker->attempt,
       now = clock_->Now()](StoreWriter& store) -> absl::Status {
        FT_ASSIGN_OR_RETURN(result->job, store.GetJob(attempt.job_id));
        FT_ASSIGN_OR_RETURN(Attempt stored, FindAttempt(store, attempt.job_id, attempt.number));
        if (result->job.attempt() != attempt.number || stored.end_time) return Fenced();
        *acknowledged = stored.acknowledged_spool_seq;
        if (stored.pid != attempt.pid) {
          stored.pid = attempt.pid;
          stored.pid_start_ticks = attempt.pid_start_ticks;
          FT_RETURN_IF_ERROR(store.UpdateAttempt(stored));
        }
        result->from = result->job.state();
        if (result->from != v1::STARTING) return absl::OkStatus();
        return ChangeState(store, &result->job, v1::RUNNING, "the worker runs", now);
      },
      [this, reply, result, acknowledged, token = worker->attempt.token](absl::Status status) {
        Worker* worker = FindWorker(token);
        if (!status.ok() || worker == nullptr) return reply(status.ok() ? Fenced() : status);
        OnCommitted(result->job, result->from);
        v1::RegisterResponse response;
        *response.mutable_plan() = worker->plan;
        response.set_acknowledged_spool_seq(*acknowledged);
        response.set_heartbeat_interval_ms(absl::ToInt64Milliseconds(options_.heartbeat_interval));
        reply(std::move(response));
      });
}

void JobController::Impl::OnHello(const std::shared_ptr<WorkerLink>& link, const v1::Hello& hello) {
  Worker* worker = FindWorker(hello.attempt_token());
  if (worker == nullptr || worker->over || worker->losing) {
    // Unknown tokens get no more of an answer: to an old worker it says what to do, to others
    // nothing.
    link->Send(CommandMessage(v1::Command::FENCED));
    return link->Close(Fenced());
  }
  if (worker->link && worker->link != link) {
    tokens_.erase(worker->link.get());
    worker->link->Close(absl::AbortedError("the worker has opened another session"));
  }
  worker->link = link;
  tokens_[link.get()] = worker->attempt.token;
  worker->last_seen = worker->last_progress = clock_->Now();
  link->Send(AckMessage(worker->attempt.acknowledged_spool_seq));
  if (worker->command != v1::Command::KIND_UNSPECIFIED) {
    link->Send(CommandMessage(worker->command));
  }
}

void JobController::Impl::OnWorkerMessage(const std::shared_ptr<WorkerLink>& link,
                                          v1::WorkerMessage message) {
  if (message.has_hello()) return OnHello(link, message.hello());
  auto token = tokens_.find(link.get());
  Worker* worker = token == tokens_.end() ? nullptr : FindWorker(token->second);
  if (worker == nullptr) {
    if (message.has_record()) link->RecordsDone(1);
    return link->Close(absl::FailedPreconditionError("the first message must be Hello"));
  }
  worker->last_seen = clock_->Now();
  if (message.has_heartbeat()) {
    if (message.heartbeat().progress_counter() != worker->heartbeat.progress_counter() ||
        message.heartbeat().stage() != worker->heartbeat.stage()) {
      worker->last_progress = worker->last_seen;
    }
    worker->heartbeat = message.heartbeat();
  } else if (message.has_record()) {
    if (worker->over || worker->losing) return link->RecordsDone(1);
    worker->last_progress = worker->last_seen;
    worker->pending.push_back(std::move(*message.mutable_record()));
    ++worker->pending_from_link;
    Flush(*worker);
  }
}

void JobController::Impl::OnLinkClosed(const std::shared_ptr<WorkerLink>& link) {
  auto token = tokens_.find(link.get());
  if (token == tokens_.end()) return;
  if (Worker* worker = FindWorker(token->second); worker && worker->link == link) {
    worker->link = nullptr;
  }
  tokens_.erase(token);
}

void JobController::Impl::Flush(Worker& worker) {
  if (worker.writing || worker.over || worker.pending.empty()) return;
  std::vector<v1::SpoolRecord> batch;
  while (!worker.pending.empty() && batch.size() < kMaxBatch) {
    batch.push_back(std::move(worker.pending.front()));
    worker.pending.pop_front();
  }
  const int from_link = std::min(worker.pending_from_link, static_cast<int>(batch.size()));
  worker.pending_from_link -= from_link;
  worker.writing = true;
  auto records = std::make_shared<std::vector<v1::SpoolRecord>>(std::move(batch));
  auto result = std::make_shared<IngestResult>();
  Commit(
      [records, result, job_id = worker.attempt.job_id, number = worker.attempt.number,
       progressed = worker.progressed, now = clock_->Now()](StoreWriter& store) {
        return IngestRecords(store, job_id, number, progressed, *records, now, result.get());
      },
      [this, token = worker.attempt.token, records, result, from_link](absl::Status status) {
        OnIngested(token, std::move(*records), from_link, status, *result);
      });
}

void JobController::Impl::OnIngested(const std::string& token, std::vector<v1::SpoolRecord> batch,
                                     int from_link, absl::Status status,
                                     const IngestResult& result) {
  Worker* worker = FindWorker(token);
  if (worker == nullptr) return;
  worker->writing = false;
  if (!status.ok()) {
    Log(v1::WARNING, worker->attempt.job_id,
        absl::StrCat("records of attempt ", worker->attempt.number,
                     " were not stored: ", status.ToString()));
    if (absl::IsOutOfRange(status)) {
      // A record is missing: the worker sends again from the last acknowledged one.
      worker->pending.clear();
      worker->pending_from_link = 0;
      if (worker->link) worker->link->Close(status);
      return MaybeLose(*worker);
    }
    // The store cannot write now (a full disk, say). Nothing is lost: the next tick tries again.
    worker->pending.insert(worker->pending.begin(), std::make_move_iterator(batch.begin()),
                           std::make_move_iterator(batch.end()));
    worker->pending_from_link += from_link;
    return;
  }
  worker->attempt.acknowledged_spool_seq = result.acknowledged_spool_seq;
  worker->progressed = result.progressed;
  if (worker->link) {
    worker->link->RecordsDone(from_link);
    worker->link->Send(AckMessage(result.acknowledged_spool_seq));
  }
  if (result.fenced) {
    if (worker->link) {
      worker->link->Send(CommandMessage(v1::Command::FENCED));
      worker->link->Close(Fenced());
    }
    SetOver(*worker);
    return;
  }
  OnCommitted(result.job, result.from);
  if (result.ended) {
    AfterRetry(result.job, result);
    SetOver(*worker);
    return;
  }
  Flush(*worker);
  MaybeLose(*worker);
}

void JobController::Impl::AfterRetry(const v1::Job& job, const IngestResult& result) {
  if (result.retry_failures == 0) return;
  not_before_[job.job_id()] =
      clock_->Now() +
      RetryDelay(result.retry_failures, options_.retry_delay, options_.retry_delay_max);
  if (hooks_.on_restart) hooks_.on_restart(result.retry_reason);
}

// May destroy `worker`.
void JobController::Impl::SetOver(Worker& worker) {
  worker.over = true;
  worker.over_since = clock_->Now();
  worker.pending.clear();
  if (worker.exited) Remove(worker.attempt.token);
}

void JobController::Impl::Remove(const std::string& token) {
  auto it = workers_.find(token);
  if (it == workers_.end()) return;
  if (it->second->link) {
    tokens_.erase(it->second->link.get());
    it->second->link->Close(absl::OkStatus());
  }
  workers_.erase(it);
  ScheduleSoon();  // its device is free now
}

void JobController::Impl::OnExit(const std::string& token, const ProcessExit& exit) {
  Worker* worker = FindWorker(token);
  if (worker == nullptr || worker->exited) return;
  worker->exited = true;
  worker->exit = exit;
  if (worker->over) return Remove(token);
  // The rest of what it had to say is in its spool; what came by the stream as well is skipped by
  // its number.
  auto spool = ReadSpool(worker->attempt_dir + "/spool.pb");
  if (spool.ok()) {
    if (!spool->tail.ok()) {
      Log(v1::INFO, worker->attempt.job_id, absl::StrCat("spool: ", spool->tail.message()));
    }
    for (v1::SpoolRecord& record : spool->records) {
      if (record.spool_seq() > worker->attempt.acknowledged_spool_seq) {
        worker->pending.push_back(std::move(record));
      }
    }
  } else if (!absl::IsNotFound(spool.status())) {
    Log(v1::WARNING, worker->attempt.job_id, spool.status().ToString());
  }
  Flush(*worker);
  MaybeLose(*worker);
}

void JobController::Impl::MaybeLose(Worker& worker) {
  if (!worker.exited || worker.over || worker.writing || worker.losing || !worker.pending.empty()) {
    return;
  }
  worker.losing = true;
  LossReport report;
  report.progressed = worker.progressed;
  report.log_tail = LogTail(worker.attempt_dir + "/worker.log");
  if (worker.kill_reason != v1::FAILURE_REASON_UNSPECIFIED) {
    report.reason = worker.kill_reason;
    report.message = worker.kill_message;
  } else if (worker.exit.known) {
    report.reason = v1::WORKER_CRASHED;
    report.message =
        absl::StrCat("worker process ", worker.process.pid, ": ", worker.exit.Describe());
  } else {
    report.reason = v1::WORKER_LOST;
    report.message =
        absl::StrCat("worker process ", worker.process.pid, " ", worker.exit.Describe());
  }
  auto result = std::make_shared<IngestResult>();
  Commit(
      [report, result, job_id = worker.attempt.job_id, number = worker.attempt.number,
       now = clock_->Now()](StoreWriter& store) {
        return LoseAttempt(store, job_id, number, report, now, result.get());
      },
      [this, result, token = worker.attempt.token](absl::Status status) {
        Worker* worker = FindWorker(token);
        if (worker == nullptr) return;
        if (!status.ok()) {
          worker->losing = false;  // the next tick tries again
          Log(v1::WARNING, worker->attempt.job_id, status.ToString());
          return;
        }
        if (!result->fenced) {
          OnCommitted(result->job, result->from);
          AfterRetry(result->job, *result);
        }
        Remove(token);
      });
}

void JobController::Impl::Kill(Worker& worker, v1::FailureReason reason, std::string message) {
  if (worker.kill_reason == v1::FAILURE_REASON_UNSPECIFIED) {
    worker.kill_reason = reason;
    worker.kill_message = std::move(message);
    Log(v1::WARNING, worker.attempt.job_id, worker.kill_message);
  }
  if (worker.process.pid == 0) return OnExit(worker.attempt.token, ProcessExit());
  // NOT_FOUND: it has ended, and OnExit is on its way.
  dependencies_.launcher->Kill(worker.process, SIGKILL).IgnoreError();
}

void JobController::Impl::SyncCommand(Worker& worker) {
  auto job = jobs_.find(worker.attempt.job_id);
  v1::Command::Kind wanted = v1::Command::KIND_UNSPECIFIED;
  if (job != jobs_.end() && job->second.state() == v1::CANCELLING) wanted = v1::Command::CANCEL;
  if (job != jobs_.end() && job->second.state() == v1::PAUSING) wanted = v1::Command::PAUSE;
  if (wanted == worker.command || wanted == v1::Command::KIND_UNSPECIFIED) return;
  worker.command = wanted;
  worker.command_time = clock_->Now();
  worker.signals_sent = 0;
  if (worker.link) worker.link->Send(CommandMessage(wanted));
}

void JobController::Impl::Supervise(Worker& worker) {
  const absl::Time now = clock_->Now();
  if (worker.exited) {
    // Something could not be stored when it ended.
    Flush(worker);
    return MaybeLose(worker);
  }
  if (worker.over) {
    if (now - worker.over_since > options_.exit_grace) {
      Log(v1::WARNING, worker.attempt.job_id,
          absl::StrCat("worker process ", worker.process.pid,
                       " has ended its attempt but not "
                       "itself; it is killed"));
      worker.over_since = now;
      dependencies_.launcher->Kill(worker.process, SIGKILL).IgnoreError();
    }
    return;
  }
  Flush(worker);
  if (worker.command != v1::Command::KIND_UNSPECIFIED) {
    const absl::Duration grace =
        worker.command == v1::Command::CANCEL ? options_.cancel_grace : options_.pause_grace;
    const absl::Duration waited = now - worker.command_time;
    if (worker.signals_sent == 0 && waited > grace) {
      worker.signals_sent = 1;
      if (worker.process.pid != 0) {
        dependencies_.launcher->Kill(worker.process, SIGTERM).IgnoreError();
      }
    } else if (worker.signals_sent == 1 && waited > grace + options_.kill_grace) {
      worker.signals_sent = 2;
      return Kill(worker, v1::WORKER_LOST,
                  absl::StrCat("worker process ", worker.process.pid, " did not ",
                               worker.command == v1::Command::CANCEL ? "end" : "pause",
                               " when it was asked to; it was killed"));
    }
  }
  if (now - worker.last_seen > options_.lease) {
    return Kill(worker, v1::WORKER_LOST,
                absl::StrCat("worker process ", worker.process.pid, " has not been heard of for ",
                             absl::FormatDuration(options_.lease), "; it was killed"));
  }
  if (worker.link && now - worker.last_progress > options_.stall_timeout) {
    Kill(worker, v1::STALLED,
         absl::StrCat("nothing moved in stage ", v1::Stage_Name(worker.heartbeat.stage()), " for ",
                      absl::FormatDuration(options_.stall_timeout), "; worker process ",
                      worker.process.pid, " was killed"));
  }
}

}  // namespace finetuned
