// The durable changes of a job, as parts of one store transaction: change of state with its event,
// records of a worker, the end of an attempt. No threads and no processes here; everything is a
// function of the transaction and the arguments.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "finetuned/v1/types.pb.h"
#include "finetuned/v1/worker.pb.h"
#include "server/store/job_store.h"

namespace finetuned {

// Keys of Job.metadata that the supervisor writes; a client may not set keys with this prefix.
inline constexpr char kReservedMetadataPrefix[] = "finetuned.";
// Stage name to do again in the next attempt; removed once an attempt has taken it up.
inline constexpr char kRerunStageKey[] = "finetuned.rerun.from_stage";
inline constexpr char kRerunCheckpointKey[] = "finetuned.rerun.from_checkpoint";
// Number of the last attempt before the last rerun: older ones count neither as retries nor as
// runtime.
inline constexpr char kRerunAttemptKey[] = "finetuned.rerun.after_attempt";

void SetTimestamp(absl::Time time, google::protobuf::Timestamp* out);
absl::Time FromTimestamp(const google::protobuf::Timestamp& timestamp);

// Appends an event of the server and notes its seq in *job (which the caller then stores).
absl::Status AppendJobEvent(StoreWriter& store, v1::Job* job, v1::JobEvent event, absl::Time now);

// Changes the state, sets the times that go with it, appends the StateChange event and stores the
// job. FAILED_PRECONDITION when the table of transitions has no such change.
absl::Status ChangeState(StoreWriter& store, v1::Job* job, v1::JobState to,
                         const std::string& reason, absl::Time now);

// FAILED with this failure: Failure event, then ChangeState.
absl::Status FailJob(StoreWriter& store, v1::Job* job, v1::Failure failure, absl::Time now);

// Stores the end of an attempt.
absl::Status EndAttempt(StoreWriter& store, Attempt attempt, const std::string& outcome,
                        absl::Time now);

absl::StatusOr<Attempt> FindAttempt(StoreReader& store, const std::string& job_id, int32_t number);

// Attempts in a row, newest first, that ended lost or failed without durable progress; `current` is
// counted whatever its outcome is so far.
int FailuresWithoutProgress(const std::vector<Attempt>& attempts, int32_t current,
                            int32_t after_attempt);
// Wall seconds of the attempts that count towards max_runtime.
int64_t RuntimeSeconds(const std::vector<Attempt>& attempts, int32_t after_attempt, absl::Time now);
int32_t RerunAfterAttempt(const v1::Job& job);

// A checkpoint, or a stage finished in this attempt: a retry goes on behind it.
bool IsDurableProgress(const v1::JobEvent& event);

// What a batch of records did.
struct IngestResult {
  // A newer attempt has the job, or this one is over: nothing was stored and nothing may be.
  bool fenced = false;
  int64_t acknowledged_spool_seq = 0;
  bool progressed = false;  // a checkpoint or a finished stage is durable
  bool ended = false;
  int retry_failures = 0;  // > 0 when the end put the job back into the queue for a retry
  v1::FailureReason retry_reason = v1::FAILURE_REASON_UNSPECIFIED;
  v1::Job job;                                    // as committed
  v1::JobState from = v1::JOB_STATE_UNSPECIFIED;  // before the batch
};

// Stores records of an attempt: each once (those already acknowledged are skipped), its event
// appended and applied to the job, AttemptEnd ending attempt and job. OUT_OF_RANGE when a spool_seq
// is missing before the first record.
absl::Status IngestRecords(StoreWriter& store, const std::string& job_id, int32_t attempt,
                           bool progressed_before, const std::vector<v1::SpoolRecord>& records,
                           absl::Time now, IngestResult* result);

// How an attempt was lost.
struct LossReport {
  v1::FailureReason reason = v1::WORKER_LOST;
  std::string message;   // "worker process 4711 was killed by SIGKILL"
  std::string log_tail;  // last lines of worker.log; may be empty
  bool progressed = false;
};

// Ends an attempt whose worker is gone and left no AttemptEnd: RUNNING and STARTING go back to the
// queue or fail by the retry table, PAUSING becomes PAUSED, CANCELLING becomes CANCELLED. A no-op
// with fenced = true for an old attempt.
absl::Status LoseAttempt(StoreWriter& store, const std::string& job_id, int32_t attempt,
                         const LossReport& report, absl::Time now, IngestResult* result);

}  // namespace finetuned
