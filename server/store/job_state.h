// The life of a job: one table of legal changes of state. The store refuses every change that is
// not in it, the supervisor asks it, the tests and SCHEMA.md print it.
//
// All functions are pure and may be called from any thread.
#pragma once

#include <string>
#include <vector>

#include "finetuned/v1/types.pb.h"

namespace finetuned {

// One row of the table: a state, what it means, and the states that may follow it.
struct JobStateRow {
  v1::JobState state;
  const char* meaning;
  std::vector<v1::JobState> next;
};

// Every state but JOB_STATE_UNSPECIFIED, in the order of a job's life.
const std::vector<JobStateRow>& JobStateTable();

// True when a job may go from `from` to `to`. Staying (from == to) is always legal for a known
// state: an update of labels or progress is no change of state. False for a value that is not in
// the table.
bool IsLegalTransition(v1::JobState from, v1::JobState to);

// States that may follow, without `from` itself. Empty for a value that is not in the table.
const std::vector<v1::JobState>& LegalNextStates(v1::JobState from);

// SUCCEEDED, FAILED, CANCELLED: no worker, and nothing happens by itself any more (a rerun queues
// the job again).
bool IsFinal(v1::JobState state);

// STARTING, RUNNING, PAUSING, CANCELLING: an attempt exists and holds its reservation on a device.
bool HasAttempt(v1::JobState state);

// "QUEUED"; "JOB_STATE_17" for a value that is not in the table.
std::string JobStateName(v1::JobState state);

// The other way round, case-insensitive; JOB_STATE_UNSPECIFIED for a name that is not in the table.
v1::JobState ParseJobState(const std::string& name);

// Names of states separated by ", ": for error texts ("allowed from RUNNING: SUCCEEDED, FAILED,
// …").
std::string JobStateNames(const std::vector<v1::JobState>& states);

// The table as Markdown, as SCHEMA.md holds it (a test compares them).
std::string JobStateTableMarkdown();

}  // namespace finetuned
