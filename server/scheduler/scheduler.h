// Scheduler: which waiting jobs start now, where, and why each of the others waits. A pure function
// of what it is given: no I/O, no clock, no state; the same input gives the same answer.
//
// Order: priority (higher first), then time of submission, then id.
// Admission: a job starts on a device when its predicted bytes fit into what is planned there
// (memory_fraction of the free memory) less what running attempts reserve, and the device has a
// free slot. Head and backfill: the first job that waits for a device is the head of its class (GPU
// jobs, CPU jobs). Later jobs of the class may start before it only where that cannot delay it: on
// a device the head can never use, or where the head still fits beside them and beside all running
// jobs that rank behind it, once the jobs ranked before it have ended. So small jobs use the gaps
// and a large one is never starved. Jobs that are held, wait for others, for disk or for their
// back-off hold back nobody.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "finetuned/v1/types.pb.h"

namespace finetuned {

// A QUEUED job.
struct JobView {
  struct Dependency {
    std::string job_id;
    std::optional<v1::JobState> state;  // nullopt: the job has been deleted
  };

  std::string job_id;
  std::string owner;
  int priority = 0;
  absl::Time create_time = absl::UnixEpoch();
  uint64_t predicted_bytes =
      0;                    // peak where it computes: device memory, or host memory for a CPU job
  uint64_t disk_bytes = 0;  // it will write
  bool wants_gpu = false;
  double memory_fraction =
      1.0;  // its own share of a device's free memory; the server's is the upper limit
  bool held = false;
  std::vector<Dependency> after;                 // must have SUCCEEDED
  absl::Time not_before = absl::InfinitePast();  // end of its back-off
  bool process_ending = false;                   // the worker of its last attempt is not gone yet
};

// Takes from a job what the job itself says. Left for the caller: the states in `after` (all
// nullopt), not_before, process_ending.
JobView ViewOf(const v1::Job& job);

// An attempt that holds memory: STARTING, RUNNING, PAUSING or CANCELLING.
struct RunningView {
  std::string job_id;
  std::string device;
  uint64_t reserved_bytes = 0;
  int priority = 0;
  absl::Time create_time = absl::UnixEpoch();
};

struct DeviceView {
  std::string id;  // "cpu", "cuda:0"
  uint64_t total_bytes = 0;
  uint64_t free_bytes = 0;  // as if none of our attempts ran
  bool usable = true;
  std::string reason;  // why it is not
  int max_jobs = 0;    // at once; 0: as many as fit
};

struct ScheduleInput {
  absl::Time now;
  std::vector<JobView> jobs;
  std::vector<RunningView> running;
  std::vector<DeviceView> devices;
  double memory_fraction = 0.9;  // planned share of a device's free memory
  // Jobs at once on the device "cpu": each uses all cores. Its own max_jobs, if set, wins.
  int max_cpu_jobs = 1;
  uint64_t disk_free_bytes = UINT64_MAX;
  uint64_t disk_reserve_bytes = 0;  // never planned
};

struct Decisions {
  struct Start {
    std::string job_id;
    std::string device;
    uint64_t reserve_bytes;
  };
  struct Waiting {
    std::string job_id;
    v1::PendingReason reason;
    std::string detail;   // "needs 11.2 GiB, 6.0 GiB of 21.0 GiB planned are free on cpu"
    int position;         // in the queue, from 1
    int jobs_ahead;       // waiting jobs before it
    absl::Time earliest;  // start not before; InfinitePast when only other jobs or people decide
  };
  // The job can never start as it is.
  struct Fail {
    enum class Cause { kTooLarge, kDependency } cause;
    std::string job_id;
    v1::Failure failure;
  };
  std::vector<Start> starts;     // in the order of the queue
  std::vector<Waiting> waiting;  // in the order of the queue
  std::vector<Fail> fails;
};

Decisions Schedule(const ScheduleInput& input);

// "11.2 GiB", "37 MiB", "512 bytes".
std::string ByteText(uint64_t bytes);

}  // namespace finetuned
