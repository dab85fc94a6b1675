#include "server/supervisor/job_changes.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "server/store/job_state.h"
#include "server/supervisor/retry_policy.h"

namespace finetuned {
namespace {

constexpr char kAfterProgress[] = "_after_progress";

v1::Level LevelOf(v1::JobState state) { return state == v1::FAILED ? v1::ERROR : v1::INFO; }

// True when the outcome is a loss or failure that left nothing new behind.
bool IsFruitless(const Attempt& attempt) {
  return attempt.outcome == "lost" || attempt.outcome == "failed";
}

void ClearFailure(v1::Job* job) { job->clear_failure(); }

// Applies a worker's event to the job's summary.
void ApplyEvent(const v1::JobEvent& event, v1::Job* job) {
  switch (event.body_case()) {
    case v1::JobEvent::kProgress:
      *job->mutable_progress() = event.progress();
      if (event.progress().stage() != v1::STAGE_UNSPECIFIED)
        job->set_stage(event.progress().stage());
      break;
    case v1::JobEvent::kStage:
      job->set_stage(event.stage().stage());
      if (!event.stage().finished()) job->clear_progress();
      // The attempt has taken up what a rerun asked for; a later retry goes on instead of going
      // back again.
      job->mutable_metadata()->erase(kRerunStageKey);
      job->mutable_metadata()->erase(kRerunCheckpointKey);
      break;
    case v1::JobEvent::kMetrics:
      *job->mutable_metrics() = event.metrics();
      break;
    case v1::JobEvent::kFailure:
      *job->mutable_failure() = event.failure();
      break;
    case v1::JobEvent::kResult:
      *job->mutable_result() = event.result();
      break;
    default:
      break;
  }
}

// An attempt failed or was lost: back to the queue, or the end.
absl::Status RetryOrFail(StoreWriter& store, const Attempt& attempt, v1::Job* job,
                         v1::Failure failure, const char* outcome, bool progressed, absl::Time now,
                         IngestResult* result) {
  FT_RETURN_IF_ERROR(
      EndAttempt(store, attempt, absl::StrCat(outcome, progressed ? kAfterProgress : ""), now));
  FT_ASSIGN_OR_RETURN(const std::vector<Attempt> attempts, store.Attempts(job->job_id()));
  const int failures =
      progressed ? 0 : FailuresWithoutProgress(attempts, attempt.number, RerunAfterAttempt(*job));
  if (job->state() == v1::CANCELLING) {
    return ChangeState(store, job, v1::CANCELLED,
                       absl::StrCat("cancelled; the worker had ended: ", failure.message()), now);
  }
  const AfterFailure after = DecideAfterFailure(failure.reason(), failures);
  if (after == AfterFailure::kFail) {
    if (failures > 1) {
      failure.add_causes(absl::StrCat(failures, " attempts in a row ended without progress"));
    }
    return FailJob(store, job, std::move(failure), now);
  }
  if (job->state() == v1::PAUSING) {
    return ChangeState(store, job, v1::PAUSED,
                       absl::StrCat("paused at the last durable point; the worker ended before it "
                                    "reached another: ",
                                    failure.message()),
                       now);
  }
  v1::JobEvent event;
  event.set_level(v1::WARNING);
  event.set_attempt(attempt.number);
  *event.mutable_failure() = failure;
  FT_RETURN_IF_ERROR(AppendJobEvent(store, job, std::move(event), now));
  ClearFailure(job);
  if (after == AfterFailure::kWaitForDisk) {
    job->set_pending_reason(v1::DISK);
    job->set_pending_detail(failure.message());
  }
  result->retry_failures = std::max(1, failures);
  result->retry_reason = failure.reason();
  return ChangeState(store, job, v1::QUEUED,
                     absl::StrCat(v1::FailureReason_Name(failure.reason()),
                                  ": goes on from the last durable point"),
                     now);
}

absl::Status ApplyEnd(StoreWriter& store, const Attempt& attempt, const v1::AttemptEnd& end,
                      bool progressed, v1::Job* job, absl::Time now, IngestResult* result) {
  result->ended = true;
  switch (end.outcome()) {
    case v1::AttemptEnd::SUCCEEDED: {
      if (end.has_result() &&
          end.result().SerializeAsString() != job->result().SerializeAsString()) {
        v1::JobEvent event;
        event.set_level(v1::INFO);
        event.set_attempt(attempt.number);
        *event.mutable_result() = end.result();
        *job->mutable_result() = end.result();
        FT_RETURN_IF_ERROR(AppendJobEvent(store, job, std::move(event), now));
      }
      ClearFailure(job);
      FT_RETURN_IF_ERROR(EndAttempt(store, attempt, "succeeded", now));
      return ChangeState(store, job, v1::SUCCEEDED, job->result().verdict(), now);
    }
    case v1::AttemptEnd::FAILED: {
      v1::Failure failure = end.failure();
      if (failure.reason() == v1::FAILURE_REASON_UNSPECIFIED) failure.set_reason(v1::INTERNAL);
      return RetryOrFail(store, attempt, job, std::move(failure), "failed", progressed, now,
                         result);
    }
    case v1::AttemptEnd::PAUSED:
    case v1::AttemptEnd::CANCELLED:
    default: {
      const bool cancelled = end.outcome() == v1::AttemptEnd::CANCELLED;
      if (job->state() == v1::CANCELLING) {
        FT_RETURN_IF_ERROR(EndAttempt(store, attempt, "cancelled", now));
        return ChangeState(store, job, v1::CANCELLED, "cancelled", now);
      }
      if (job->state() == v1::PAUSING) {
        FT_RETURN_IF_ERROR(EndAttempt(store, attempt, "paused", now));
        return ChangeState(store, job, v1::PAUSED,
                           cancelled ? "paused; the worker stopped without a new checkpoint"
                                     : "paused at a durable point",
                           now);
      }
      // Nobody asked the server: the machine is going down, or a person sent a signal. The job goes
      // on when it can.
      v1::Failure failure;
      failure.set_reason(v1::PREEMPTED);
      failure.set_stage(job->stage());
      failure.set_step(-1);
      failure.set_message("the worker was told to stop by a signal from outside the server");
      return RetryOrFail(store, attempt, job, std::move(failure), "paused", /*progressed=*/false,
                         now, result);
    }
  }
}

}  // namespace

bool IsDurableProgress(const v1::JobEvent& event) {
  return event.has_checkpoint() ||
         (event.has_stage() && event.stage().finished() && !event.stage().reused());
}

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* out) {
  const int64_t nanos = absl::ToUnixNanos(time);
  out->set_seconds(nanos / 1'000'000'000);
  out->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

absl::Time FromTimestamp(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

absl::Status AppendJobEvent(StoreWriter& store, v1::Job* job, v1::JobEvent event, absl::Time now) {
  if (!event.has_time()) SetTimestamp(now, event.mutable_time());
  if (event.attempt() == 0) event.set_attempt(job->attempt());
  FT_ASSIGN_OR_RETURN(const v1::JobEvent stored,
                      store.AppendEvent(job->job_id(), std::move(event)));
  job->set_last_seq(stored.seq());
  return absl::OkStatus();
}

absl::Status ChangeState(StoreWriter& store, v1::Job* job, v1::JobState to,
                         const std::string& reason, absl::Time now) {
  const v1::JobState from = job->state();
  if (!IsLegalTransition(from, to)) {
    return absl::FailedPreconditionError(
        absl::StrCat("job ", job->job_id(), " is ", JobStateName(from), " and cannot become ",
                     JobStateName(to), "; possible: ", JobStateNames(LegalNextStates(from))));
  }
  job->set_state(to);
  if (to == v1::RUNNING && !job->has_start_time()) SetTimestamp(now, job->mutable_start_time());
  if (IsFinal(to)) {
    SetTimestamp(now, job->mutable_end_time());
  } else {
    job->clear_end_time();
  }
  if (to != v1::QUEUED) {
    job->set_pending_reason(v1::PENDING_REASON_UNSPECIFIED);
    job->clear_pending_detail();
  }
  v1::JobEvent event;
  event.set_level(LevelOf(to));
  v1::StateChange* change = event.mutable_state();
  change->set_from(from);
  change->set_to(to);
  change->set_reason(reason);
  change->set_attempt(job->attempt());
  FT_RETURN_IF_ERROR(AppendJobEvent(store, job, std::move(event), now));
  return store.UpdateJob(*job);
}

absl::Status FailJob(StoreWriter& store, v1::Job* job, v1::Failure failure, absl::Time now) {
  const std::string reason =
      absl::StrCat(v1::FailureReason_Name(failure.reason()), ": ", failure.message());
  // The worker may have reported the same failure as its last event already.
  if (job->failure().SerializeAsString() != failure.SerializeAsString()) {
    v1::JobEvent event;
    event.set_level(v1::ERROR);
    *event.mutable_failure() = failure;
    FT_RETURN_IF_ERROR(AppendJobEvent(store, job, std::move(event), now));
  }
  *job->mutable_failure() = std::move(failure);
  return ChangeState(store, job, v1::FAILED, reason, now);
}

absl::Status EndAttempt(StoreWriter& store, Attempt attempt, const std::string& outcome,
                        absl::Time now) {
  attempt.outcome = outcome;
  attempt.end_time = now;
  return store.UpdateAttempt(attempt);
}

absl::StatusOr<Attempt> FindAttempt(StoreReader& store, const std::string& job_id, int32_t number) {
  FT_ASSIGN_OR_RETURN(std::vector<Attempt> attempts, store.Attempts(job_id));
  for (Attempt& attempt : attempts) {
    if (attempt.number == number) return std::move(attempt);
  }
  return absl::NotFoundError(absl::StrCat("job ", job_id, " has no attempt ", number));
}

int FailuresWithoutProgress(const std::vector<Attempt>& attempts, int32_t current,
                            int32_t after_attempt) {
  std::vector<const Attempt*> newest_first;
  for (const Attempt& attempt : attempts) {
    if (attempt.number > after_attempt && attempt.number < current)
      newest_first.push_back(&attempt);
  }
  std::sort(newest_first.begin(), newest_first.end(),
            [](const Attempt* a, const Attempt* b) { return a->number > b->number; });
  int failures = 1;
  for (const Attempt* attempt : newest_first) {
    if (!IsFruitless(*attempt)) break;
    ++failures;
  }
  return failures;
}

int64_t RuntimeSeconds(const std::vector<Attempt>& attempts, int32_t after_attempt,
                       absl::Time now) {
  absl::Duration total;
  for (const Attempt& attempt : attempts) {
    if (attempt.number <= after_attempt) continue;
    total += attempt.end_time.value_or(now) - attempt.start_time;
  }
  return absl::ToInt64Seconds(total);
}

int32_t RerunAfterAttempt(const v1::Job& job) {
  int32_t attempt = 0;
  auto it = job.metadata().find(kRerunAttemptKey);
  if (it != job.metadata().end() && !absl::SimpleAtoi(it->second, &attempt)) attempt = 0;
  return attempt;
}

absl::Status IngestRecords(StoreWriter& store, const std::string& job_id, int32_t attempt_number,
                           bool progressed_before, const std::vector<v1::SpoolRecord>& records,
                           absl::Time now, IngestResult* result) {
  *result = {};
  FT_ASSIGN_OR_RETURN(v1::Job job, store.GetJob(job_id));
  FT_ASSIGN_OR_RETURN(Attempt attempt, FindAttempt(store, job_id, attempt_number));
  result->from = job.state();
  result->progressed = progressed_before;
  if (job.attempt() != attempt_number || attempt.end_time.has_value()) {
    result->fenced = true;
    result->acknowledged_spool_seq = attempt.acknowledged_spool_seq;
    result->job = std::move(job);
    return absl::OkStatus();
  }
  bool dirty = false;
  for (const v1::SpoolRecord& record : records) {
    if (record.spool_seq() <= attempt.acknowledged_spool_seq) continue;
    if (record.spool_seq() != attempt.acknowledged_spool_seq + 1) {
      return absl::OutOfRangeError(absl::StrCat("job ", job_id, " attempt ", attempt_number,
                                                ": spool_seq ", record.spool_seq(), " after ",
                                                attempt.acknowledged_spool_seq));
    }
    // The worker began while the server was away or before its registration was stored.
    if (job.state() == v1::STARTING) {
      FT_RETURN_IF_ERROR(ChangeState(store, &job, v1::RUNNING, "the worker runs", now));
    }
    attempt.acknowledged_spool_seq = record.spool_seq();
    dirty = true;
    if (record.has_end()) {
      FT_RETURN_IF_ERROR(
          ApplyEnd(store, attempt, record.end(), result->progressed, &job, now, result));
      break;
    }
    // Changes of state are the server's to report.
    if (!record.has_event() || record.event().has_state()) continue;
    v1::JobEvent event = record.event();
    event.clear_seq();
    event.set_attempt(attempt_number);
    result->progressed |= IsDurableProgress(event);
    ApplyEvent(event, &job);
    FT_RETURN_IF_ERROR(AppendJobEvent(store, &job, std::move(event), now));
  }
  if (dirty && !result->ended) {
    FT_RETURN_IF_ERROR(store.UpdateAttempt(attempt));
    FT_RETURN_IF_ERROR(store.UpdateJob(job));
  }
  result->acknowledged_spool_seq = attempt.acknowledged_spool_seq;
  result->job = std::move(job);
  return absl::OkStatus();
}

absl::Status LoseAttempt(StoreWriter& store, const std::string& job_id, int32_t attempt_number,
                         const LossReport& report, absl::Time now, IngestResult* result) {
  *result = {};
  FT_ASSIGN_OR_RETURN(v1::Job job, store.GetJob(job_id));
  FT_ASSIGN_OR_RETURN(const Attempt attempt, FindAttempt(store, job_id, attempt_number));
  result->from = job.state();
  if (job.attempt() != attempt_number || attempt.end_time.has_value()) {
    result->fenced = true;
    result->job = std::move(job);
    return absl::OkStatus();
  }
  v1::Failure failure;
  failure.set_reason(report.reason);
  failure.set_stage(job.stage());
  failure.set_step(job.stage() == v1::TRAINING ? job.metrics().step() : -1);
  failure.set_message(report.message);
  if (!report.log_tail.empty()) {
    failure.add_causes(absl::StrCat("end of worker.log:\n", report.log_tail));
  }
  FT_RETURN_IF_ERROR(RetryOrFail(store, attempt, &job, std::move(failure), "lost",
                                 report.progressed, now, result));
  result->ended = true;
  result->job = std::move(job);
  return absl::OkStatus();
}

}  // namespace finetuned
