#include "server/store/job_state.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace finetuned {

const std::vector<JobStateRow>& JobStateTable() {
  using namespace v1;  // NOLINT: the names of the states, nothing else of the namespace is used
                       // here
  static const auto* table = new std::vector<JobStateRow>{
      // FAILED: the specification, the model or the data is bad. CANCELLED: nothing runs yet, so at
      // once.
      {VALIDATING,
       "accepted and stored; model, data and memory are being checked",
       {QUEUED, FAILED, CANCELLED}},
      // FAILED: a dependency failed, or no device is large enough. PAUSED: taken out of the queue
      // by PauseJob.
      // CANCELLED: nothing runs, so at once.
      {QUEUED, "waits; pending_reason says for what", {STARTING, PAUSED, CANCELLED, FAILED}},
      // QUEUED: the start failed for a reason that is retried. PAUSED, CANCELLED, SUCCEEDED are not
      // reached from here:
      // a worker that has been launched is first asked to stop, or registers.
      {STARTING,
       "a worker process is being started",
       {RUNNING, QUEUED, PAUSING, CANCELLING, FAILED}},
      // QUEUED: the attempt was lost (or met a full disk, or was preempted) and is retried. PAUSED:
      // the worker stopped
      // durably by itself, without having been asked.
      {RUNNING,
       "stage says what it does",
       {SUCCEEDED, FAILED, PAUSING, PAUSED, CANCELLING, QUEUED}},
      // SUCCEEDED, FAILED: it ended before it saw the request. QUEUED: ResumeJob before the pause
      // was complete.
      {PAUSING,
       "asked to stop at the next durable point",
       {PAUSED, SUCCEEDED, FAILED, CANCELLING, QUEUED}},
      // FAILED is not reached: nothing runs that could fail.
      {PAUSED, "durable and off the device; ResumeJob goes on", {QUEUED, CANCELLED}},
      // SUCCEEDED, FAILED: it ended before it saw the request.
      {CANCELLING, "asked to end", {CANCELLED, SUCCEEDED, FAILED}},
      // QUEUED, here and below: RerunJob.
      {CANCELLED, "final; RerunJob queues it again", {QUEUED}},
      {SUCCEEDED, "final; RerunJob queues it again", {QUEUED}},
      {FAILED, "final; RerunJob may go on from a stage", {QUEUED}},
  };
  return *table;
}

namespace {

const JobStateRow* Find(v1::JobState state) {
  for (const JobStateRow& row : JobStateTable()) {
    if (row.state == state) return &row;
  }
  return nullptr;
}

}  // namespace

bool IsLegalTransition(v1::JobState from, v1::JobState to) {
  const JobStateRow* row = Find(from);
  if (row == nullptr) return false;
  return from == to || std::find(row->next.begin(), row->next.end(), to) != row->next.end();
}

const std::vector<v1::JobState>& LegalNextStates(v1::JobState from) {
  static const auto* none = new std::vector<v1::JobState>;
  const JobStateRow* row = Find(from);
  return row == nullptr ? *none : row->next;
}

bool IsFinal(v1::JobState state) {
  return state == v1::SUCCEEDED || state == v1::FAILED || state == v1::CANCELLED;
}

bool HasAttempt(v1::JobState state) {
  return state == v1::STARTING || state == v1::RUNNING || state == v1::PAUSING ||
         state == v1::CANCELLING;
}

std::string JobStateName(v1::JobState state) {
  if (Find(state) == nullptr) return absl::StrCat("JOB_STATE_", static_cast<int>(state));
  return v1::JobState_Name(state);
}

v1::JobState ParseJobState(const std::string& name) {
  for (const JobStateRow& row : JobStateTable()) {
    if (absl::EqualsIgnoreCase(v1::JobState_Name(row.state), name)) return row.state;
  }
  return v1::JOB_STATE_UNSPECIFIED;
}

std::string JobStateNames(const std::vector<v1::JobState>& states) {
  return absl::StrJoin(states, ", ",
                       [](std::string* out, v1::JobState s) { out->append(JobStateName(s)); });
}

std::string JobStateTableMarkdown() {
  std::string text = "| value | state | meaning | may become |\n|---|---|---|---|\n";
  for (const JobStateRow& row : JobStateTable()) {
    absl::StrAppend(&text, "| ", static_cast<int>(row.state), " | ", JobStateName(row.state), " | ",
                    row.meaning, " | ", JobStateNames(row.next), " |\n");
  }
  return text;
}

}  // namespace finetuned
