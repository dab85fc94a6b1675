// The inside of JobController. Everything below "control thread" is touched on that thread alone.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "finetuned/v1/worker.pb.h"
#include "server/launcher/launcher.h"
#include "server/store/job_store.h"
#include "server/supervisor/event_loop.h"
#include "server/supervisor/job_changes.h"
#include "server/supervisor/job_controller.h"
#include "server/supervisor/reply.h"
#include "server/supervisor/spec_check.h"
#include "server/supervisor/worker_service.h"

namespace finetuned {

// One worker process the server knows: of a live attempt, or of one that is over while the process
// still ends.
struct Worker {
  Attempt attempt;    // as stored, but for acknowledged_spool_seq, which is kept current
  ProcessId process;  // pid 0: launched, but an earlier server died before it could note the pid
  std::string attempt_dir;
  v1::AttemptPlan plan;

  std::shared_ptr<WorkerLink> link;  // null while the worker is not connected
  absl::Time last_seen;              // of any message
  absl::Time last_progress;          // when progress_counter last changed
  v1::Heartbeat heartbeat;

  std::deque<v1::SpoolRecord> pending;  // received, not yet in a write
  int pending_from_link = 0;            // of these, how many the link counts
  bool writing = false;                 // one write at a time keeps the order
  bool progressed = false;

  bool over = false;  // the attempt has ended in the store
  absl::Time over_since;
  bool exited = false;
  ProcessExit exit;
  bool losing = false;

  v1::Command::Kind command = v1::Command::KIND_UNSPECIFIED;
  absl::Time command_time;
  int signals_sent = 0;  // 1: SIGTERM, 2: SIGKILL

  // Why the server killed it; FAILURE_REASON_UNSPECIFIED when it did not.
  v1::FailureReason kill_reason = v1::FAILURE_REASON_UNSPECIFIED;
  std::string kill_message;
};

class JobController::Impl {
 public:
  Impl(ControllerOptions options, Dependencies dependencies, ControllerHooks hooks);
  ~Impl();
  absl::Status Start();
  void Shutdown();

  // controller_verbs.cc; any thread.
  void Create(v1::CreateJobRequest request, Reply<absl::StatusOr<v1::Job>> reply);
  void Cancel(const std::string& job_id, Reply<absl::StatusOr<v1::Job>> reply);
  void Pause(const std::string& job_id, Reply<absl::StatusOr<v1::Job>> reply);
  void Resume(const std::string& job_id, Reply<absl::StatusOr<v1::Job>> reply);
  void Rerun(const v1::RerunJobRequest& request, Reply<absl::StatusOr<v1::Job>> reply);
  void Update(const v1::UpdateJobRequest& request, Reply<absl::StatusOr<v1::Job>> reply);
  void Delete(const std::string& job_id, Reply<absl::Status> reply);
  void GetQueue(Reply<absl::StatusOr<v1::GetQueueResponse>> reply);
  void ListDevices(Reply<absl::StatusOr<v1::ListDevicesResponse>> reply);

  // controller_queries.cc; any thread.
  void Validate(const v1::ValidateJobRequest& request,
                Reply<absl::StatusOr<v1::ValidateJobResponse>> reply);
  void Estimate(const v1::EstimateJobRequest& request,
                Reply<absl::StatusOr<v1::EstimateJobResponse>> reply);
  void Inspect(const v1::InspectModelRequest& request,
               Reply<absl::StatusOr<v1::InspectModelResponse>> reply);
  void Preview(const v1::PreviewDatasetRequest& request,
               Reply<absl::StatusOr<v1::PreviewDatasetResponse>> reply);

 private:
  using JobReply = Reply<absl::StatusOr<v1::Job>>;
  using QueryReply = std::function<void(absl::StatusOr<v1::QueryResponse>)>;
  // Changes a job inside the transaction; the job is stored by it.
  using JobChange = std::function<absl::Status(StoreWriter&, v1::Job*, absl::Time now)>;

  // Any thread: writes, then runs `then` on the control thread.
  void Commit(JobStore::WriteFn write, std::function<void(absl::Status)> then);
  // Any thread: reads on a store thread, then runs `then` on the control thread.
  template <typename T>
  void ReadThen(std::function<T(StoreReader&)> read, std::function<void(T)> then);
  // Any thread: one job's change, its cache entry and its answer.
  void Change(const std::string& job_id, JobChange change, std::optional<JobReply> reply);
  void Log(v1::Level level, const std::string& job_id, const std::string& text) const;

  // ---- control thread ----
  void Tick();
  void OnCommitted(const v1::Job& job, v1::JobState from);
  void ScheduleSoon();

  // controller_queries.cc
  // Runs `task` when the devices are known: at once, but for the first seconds of a server.
  void WhenDevicesKnown(std::function<void()> task);
  void AskForDevices();
  // Reads the source job, if the spec names one, and checks everything that needs no worker.
  void Check(const v1::JobSpec& spec, std::function<void(absl::StatusOr<SpecCheck>)> then);
  void Query(v1::QueryRequest request, absl::Duration timeout, QueryReply reply);
  void StartQueries();
  void StartValidation(const std::string& job_id);
  void FinishValidation(const std::string& job_id, std::vector<v1::Problem> problems,
                        absl::StatusOr<v1::QueryResponse> response);
  void PredictTimes(v1::Estimate* estimate);

  // controller_schedule.cc
  void Schedule();
  void StartAttempt(const std::string& job_id, const std::string& device, uint64_t bytes);
  void LaunchAttempt(const v1::Job& job, const Attempt& attempt, int64_t runtime_left_seconds);
  absl::Status WritePlan(const v1::Job& job, int64_t runtime_left_seconds, Worker* worker);
  void MarkPending(const std::string& job_id, v1::PendingReason reason, const std::string& detail);
  std::vector<v1::Device> Devices();
  uint64_t ReservedBytes(const std::string& device) const;

  // controller_workers.cc
  void Adopt(const Attempt& attempt, bool progressed);
  void WatchWorker(Worker& worker);
  void OnRegister(const v1::RegisterRequest& request,
                  Reply<absl::StatusOr<v1::RegisterResponse>> reply);
  void OnWorkerMessage(const std::shared_ptr<WorkerLink>& link, v1::WorkerMessage message);
  void OnLinkClosed(const std::shared_ptr<WorkerLink>& link);
  void OnHello(const std::shared_ptr<WorkerLink>& link, const v1::Hello& hello);
  void Flush(Worker& worker);
  void OnIngested(const std::string& token, std::vector<v1::SpoolRecord> batch, int from_link,
                  absl::Status status, const IngestResult& result);
  void OnExit(const std::string& token, const ProcessExit& exit);
  void MaybeLose(Worker& worker);
  void SetOver(Worker& worker);
  void Remove(const std::string& token);
  void Kill(Worker& worker, v1::FailureReason reason, std::string message);
  void SyncCommand(Worker& worker);
  void Supervise(Worker& worker);
  void AfterRetry(const v1::Job& job, const IngestResult& result);
  Worker* FindWorker(const std::string& token);
  Worker* LiveWorkerOf(const std::string& job_id);
  bool HasProcess(const std::string& job_id) const;

  const ControllerOptions options_;
  const Dependencies dependencies_;
  const ControllerHooks hooks_;
  JobStore* const store_;
  Clock* const clock_;
  // Outlives the Impl in callbacks of the store and the launcher, which then post to a stopped
  // loop.
  const std::shared_ptr<EventLoop> loop_ = std::make_shared<EventLoop>();
  std::unique_ptr<WorkerServer> worker_server_;
  std::atomic<bool> shut_down_ = false;

  // Control thread. jobs_ is what the store holds of every job that is not final; commits update it
  // in their order.
  std::map<std::string, v1::Job> jobs_;
  std::map<std::string, v1::JobState> dependency_states_;   // of jobs named in some `after`
  std::map<std::string, std::unique_ptr<Worker>> workers_;  // by token
  std::map<WorkerLink*, std::string> tokens_;               // of links that said Hello
  // Jobs whose next attempt is being stored: its device and bytes.
  std::map<std::string, std::pair<std::string, uint64_t>> starting_;
  std::map<std::string, absl::Time> pending_written_;
  std::map<std::string, absl::Time> not_before_;  // back-off of retries
  std::set<std::string> validating_;
  bool schedule_posted_ = false;

  bool devices_known_ = false;
  std::vector<v1::Device> gpus_;
  std::string gpu_problem_;
  std::vector<std::function<void()>> waiting_for_devices_;

  struct WaitingQuery {
    v1::QueryRequest request;
    absl::Duration timeout;
    QueryReply reply;
  };
  std::deque<WaitingQuery> queries_;
  // What waits for a process; held here and not by the launcher, so that Shutdown answers it.
  std::map<int64_t, QueryReply> running_queries_;
  int64_t next_query_ = 1;
};

template <typename T>
void JobController::Impl::ReadThen(std::function<T(StoreReader&)> read,
                                   std::function<void(T)> then) {
  store_->Read([loop = loop_, read = std::move(read), then = std::move(then)](StoreReader& reader) {
    loop->Post([then, value = std::make_shared<T>(read(reader))] { then(std::move(*value)); });
  });
}

}  // namespace finetuned
