// Which waiting jobs start now, where, and why the others wait. Pure: no I/O, no clock.
//
// Order: priority (higher first), then time of submission. A job is admitted on its predicted
// memory; one that does not fit now holds back later jobs for the same device, so that a large job
// is not starved by small ones.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "finetuned/v1/types.pb.h"

namespace finetuned {

struct QueuedJob {
  const v1::Job* job = nullptr;  // QUEUED
  bool process_ending = false;   // the process of its last attempt is not gone yet
  absl::Duration back_off;       // left of the wait after a lost attempt
};

struct DeviceRoom {
  std::string device;  // "cpu", "cuda:0"
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;      // there without our own jobs
  uint64_t reserved_bytes = 0;  // by running and starting attempts
};

struct StartPlanInput {
  std::vector<QueuedJob> jobs;
  std::vector<DeviceRoom> devices;
  // States of the jobs named in `after`; missing: deleted.
  const std::map<std::string, v1::JobState>* dependency_states = nullptr;
  double memory_fraction = 0.9;  // planned share of a device
  uint64_t disk_free_bytes = 0;
  uint64_t disk_reserve_bytes = 0;  // never planned
};

struct StartDecision {
  enum Kind { kStart, kWait, kFail } kind = kWait;
  std::string job_id;
  // kStart
  std::string device;
  uint64_t bytes = 0;
  // kWait
  v1::PendingReason reason = v1::PENDING_REASON_UNSPECIFIED;
  std::string detail;
  // kFail
  v1::Failure failure;
};

// One decision for each job, in the order in which they were considered.
std::vector<StartDecision> PlanStarts(const StartPlanInput& input);

// Bytes to reserve for a job: the predicted peak where it computes.
uint64_t PlannedBytes(const v1::Job& job);

// "11.2 GiB".
std::string FormatBytes(uint64_t bytes);

}  // namespace finetuned
