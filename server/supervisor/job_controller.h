// JobController: everything that happens to jobs. The verbs of the API come in here; worker
// processes are started, listened to and ended from here. README.md describes the protocol,
// fencing, adoption and the retry table.
//
// Threads: every method may be called from any thread and returns at once. All decisions are made
// on one control thread; durable changes are transactions of the store. Each callback is called
// exactly once, on the control thread or a store thread, and must not block. A callback still open
// at Shutdown gets UNAVAILABLE.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "finetuned/v1/service.pb.h"
#include "finetuned/v1/types.pb.h"
#include "server/store/clock.h"
#include "server/supervisor/spec_check.h"

namespace finetuned {

class JobStore;
class Launcher;

struct ControllerOptions {
  std::string data_dir;  // exists; jobs/, cache/ are made below it
  std::string version;
  // Where workers connect; see WorkerSocketPath. Empty: WorkerSocketPath(data_dir).
  std::string worker_socket;

  absl::Duration tick = absl::Seconds(1);
  absl::Duration heartbeat_interval = absl::Seconds(5);
  // A worker that is alive but silent (no session, no heartbeat) for this long is killed:
  // WORKER_LOST.
  absl::Duration lease = absl::Seconds(120);
  // Heartbeats, but progress_counter stands still: STALLED.
  absl::Duration stall_timeout = absl::Minutes(30);
  // After a command without effect: SIGTERM, and `kill_grace` later SIGKILL.
  absl::Duration cancel_grace = absl::Seconds(30);
  absl::Duration pause_grace = absl::Minutes(15);
  absl::Duration kill_grace = absl::Seconds(20);
  // An attempt that has reported its end but whose process does not go is killed after this.
  absl::Duration exit_grace = absl::Seconds(60);
  // First delay of a retry; it doubles each time, up to retry_delay_max.
  absl::Duration retry_delay = absl::Seconds(1);
  absl::Duration retry_delay_max = absl::Seconds(60);

  absl::Duration query_timeout = absl::Minutes(10);
  int concurrent_queries = 2;
  // Share of a device's memory that is planned for jobs.
  double memory_fraction = 0.9;
  // CPU jobs at once, as each uses all processors; 0: as many as fit in memory.
  int max_cpu_jobs = 1;
  // Kept free on the data directory's file system.
  uint64_t disk_reserve_bytes = 1ull << 30;
  int cpu_threads = 0;  // of a worker; 0: all this process may use
  // Memory of the "cpu" device; 0: what the machine has available now (cgroup limit included).
  uint64_t host_memory_bytes = 0;
};

// For metrics; called on the control thread, must not block. Each may be null.
struct ControllerHooks {
  // After the commit of a change of state; from is JOB_STATE_UNSPECIFIED for a new job.
  std::function<void(const v1::Job& job, v1::JobState from)> on_state;
  // An attempt was lost and the job goes back to the queue.
  std::function<void(v1::FailureReason reason)> on_restart;
  // Lines for the server's log; job_id may be empty. Any thread.
  std::function<void(v1::Level level, const std::string& job_id, const std::string& text)> log;
};

class JobController {
 public:
  using JobCallback = std::function<void(absl::StatusOr<v1::Job>)>;

  // Nothing is owned; all of it outlives the controller.
  struct Dependencies {
    JobStore* store = nullptr;
    Launcher* launcher = nullptr;
    Clock* clock = nullptr;
    PathLookup paths;  // of server/artifacts/path_roots.h
  };

  // Opens the workers' socket, adopts the attempts of an earlier server, takes up waiting
  // validations, asks the worker for GPUs and starts scheduling. Blocks for the store's reads only.
  // FAILED_PRECONDITION when the socket cannot be opened.
  static absl::StatusOr<std::unique_ptr<JobController>> Start(ControllerOptions options,
                                                              Dependencies dependencies,
                                                              ControllerHooks hooks = {});
  // Shutdown, if it was not called.
  ~JobController();

  // Refuses new work, closes the workers' socket and ends the control thread. Workers stay and
  // spool; the next server adopts them. Blocks until done; idempotent.
  void Shutdown();

  // Stores the job, state VALIDATING, and answers after the commit. The same request_id answers
  // with the job it made, ALREADY_EXISTS if its spec differs. INVALID_ARGUMENT carries all problems
  // of the spec (proto/errors); FAILED_PRECONDITION for a source job without an adapter or an
  // unknown job in `after`; NOT_FOUND for an unknown source job.
  void Create(v1::CreateJobRequest request, JobCallback done);

  // All of these: NOT_FOUND for an unknown job, FAILED_PRECONDITION naming the state in which the
  // verb does not fit. Cancel and Pause answer when the wish is durable (CANCELLING, PAUSING), or
  // with the final state when nothing runs.
  void Cancel(std::string job_id, JobCallback done);
  void Pause(std::string job_id, JobCallback done);
  void Resume(std::string job_id, JobCallback done);
  // From a final state to QUEUED; the answer may take as long as the check of changed keys does.
  void Rerun(v1::RerunJobRequest request, JobCallback done);
  void Update(v1::UpdateJobRequest request, JobCallback done);
  // Only a final job; its directory goes too.
  void Delete(std::string job_id, std::function<void(absl::Status)> done);

  // Through the worker's short mode, a few at a time. Problems of the spec itself are answered as
  // problems by Validate and Estimate, as INVALID_ARGUMENT by the others.
  void Validate(v1::ValidateJobRequest request,
                std::function<void(absl::StatusOr<v1::ValidateJobResponse>)> done);
  void Estimate(v1::EstimateJobRequest request,
                std::function<void(absl::StatusOr<v1::EstimateJobResponse>)> done);
  void Inspect(v1::InspectModelRequest request,
               std::function<void(absl::StatusOr<v1::InspectModelResponse>)> done);
  void Preview(v1::PreviewDatasetRequest request,
               std::function<void(absl::StatusOr<v1::PreviewDatasetResponse>)> done);

  void GetQueue(std::function<void(absl::StatusOr<v1::GetQueueResponse>)> done);
  void ListDevices(std::function<void(absl::StatusOr<v1::ListDevicesResponse>)> done);

 private:
  class Impl;
  explicit JobController(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// <data_dir>/jobs/<job_id>: the directory a job's worker writes to.
std::string JobDirectory(const std::string& data_dir, const std::string& job_id);

// <data_dir>/worker.sock, or, where that is longer than a unix socket's path may be, a short path
// below /run or /tmp that is always the same for one data directory.
std::string WorkerSocketPath(const std::string& data_dir);

}  // namespace finetuned
