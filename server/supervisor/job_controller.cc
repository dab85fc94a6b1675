#include "server/supervisor/job_controller.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "server/store/job_state.h"
#include "server/supervisor/controller_impl.h"

namespace finetuned {
namespace {

const std::vector<v1::JobState>& OpenStates() {
  static const auto* states =
      new std::vector<v1::JobState>{v1::VALIDATING, v1::QUEUED, v1::STARTING,  v1::RUNNING,
                                    v1::PAUSING,    v1::PAUSED, v1::CANCELLING};
  return *states;
}

// What an earlier server left: read once, before anything is decided.
struct Inheritance {
  absl::Status status;
  std::vector<v1::Job> jobs;
  std::map<std::string, v1::JobState> dependency_states;
  std::vector<Attempt> attempts;
  std::set<std::string> progressed;  // tokens of attempts with durable progress
};

bool HasProgressed(StoreReader& store, const Attempt& attempt) {
  constexpr int kPage = 1000;
  int64_t after = 0;
  for (;;) {
    auto events = store.EventsAfter(attempt.job_id, after, kPage);
    if (!events.ok() || events->empty()) return false;
    for (const auto& bytes : *events) {
      v1::JobEvent event;
      if (!event.ParseFromString(*bytes)) return false;
      after = event.seq();
      if (event.attempt() == attempt.number && IsDurableProgress(event)) return true;
    }
  }
}

Inheritance ReadInheritance(StoreReader& store) {
  Inheritance found;
  auto read = [&]() -> absl::Status {
    FT_ASSIGN_OR_RETURN(found.jobs, store.JobsInStates(OpenStates()));
    for (const v1::Job& job : found.jobs) {
      for (const std::string& id : job.after()) {
        auto dependency = store.GetJob(id);
        found.dependency_states[id] =
            dependency.ok() ? dependency->state() : v1::JOB_STATE_UNSPECIFIED;
      }
    }
    FT_ASSIGN_OR_RETURN(found.attempts, store.LiveAttempts());
    for (const Attempt& attempt : found.attempts) {
      if (HasProgressed(store, attempt)) found.progressed.insert(attempt.token);
    }
    return absl::OkStatus();
  };
  found.status = read();
  return found;
}

}  // namespace

std::string JobDirectory(const std::string& data_dir, const std::string& job_id) {
  return absl::StrCat(data_dir, "/jobs/", job_id);
}

std::string WorkerSocketPath(const std::string& data_dir) {
  std::string path = data_dir + "/worker.sock";
  if (path.size() < sizeof(sockaddr_un::sun_path)) return path;
  const std::string name = absl::StrCat("finetuned-", Sha256Hex(data_dir).substr(0, 16), ".sock");
  return absl::StrCat(access("/run", W_OK) == 0 ? "/run/" : "/tmp/", name);
}

JobController::Impl::Impl(ControllerOptions options, Dependencies dependencies,
                          ControllerHooks hooks)
    : options_(std::move(options)),
      dependencies_(std::move(dependencies)),
      hooks_(std::move(hooks)),
      store_(dependencies_.store),
      clock_(dependencies_.clock) {}

JobController::Impl::~Impl() { Shutdown(); }

absl::Status JobController::Impl::Start() {
  FT_RETURN_IF_ERROR(MakeDirectories(options_.data_dir + "/jobs"));
  FT_RETURN_IF_ERROR(MakeDirectories(options_.data_dir + "/cache"));
  Inheritance found;
  store_->ReadSync([&](StoreReader& store) { found = ReadInheritance(store); });
  FT_RETURN_IF_ERROR(found.status);
  dependency_states_ = std::move(found.dependency_states);
  for (v1::Job& job : found.jobs) jobs_[job.job_id()] = std::move(job);

  loop_->Start(options_.tick, [this] { Tick(); });
  WorkerServiceHandlers handlers;
  handlers.on_register = [this](v1::RegisterRequest request, auto done) {
    loop_->Post([this, request = std::move(request),
                 reply = Reply<absl::StatusOr<v1::RegisterResponse>>(std::move(done))] {
      OnRegister(request, reply);
    });
  };
  handlers.on_message = [this](std::shared_ptr<WorkerLink> link, v1::WorkerMessage message) {
    loop_->Post([this, link = std::move(link),
                 message = std::make_shared<v1::WorkerMessage>(std::move(message))] {
      OnWorkerMessage(link, std::move(*message));
    });
  };
  handlers.on_closed = [this](std::shared_ptr<WorkerLink> link) {
    loop_->Post([this, link = std::move(link)] { OnLinkClosed(link); });
  };
  // Adoption comes before the first message of a worker: both are tasks of the loop, in this order.
  loop_->Post([this, found = std::move(found)] {
    for (const Attempt& attempt : found.attempts) {
      auto job = jobs_.find(attempt.job_id);
      if (job == jobs_.end() || job->second.attempt() != attempt.number) {
        Log(v1::WARNING, attempt.job_id,
            absl::StrCat("attempt ", attempt.number, " is open in the store but not current"));
        continue;
      }
      Adopt(attempt, found.progressed.count(attempt.token) > 0);
    }
    AskForDevices();
    std::vector<std::string> unchecked;
    for (const auto& [id, job] : jobs_) {
      if (job.state() == v1::VALIDATING) unchecked.push_back(id);
    }
    for (const std::string& id : unchecked) StartValidation(id);
  });
  FT_ASSIGN_OR_RETURN(worker_server_, StartWorkerServer(options_.worker_socket, handlers));
  return absl::OkStatus();
}

void JobController::Impl::Shutdown() {
  if (shut_down_.exchange(true)) return;
  // The loop first: what is committed later is read back by the next server.
  loop_->Stop();
  if (worker_server_) worker_server_->Shutdown();
  queries_.clear();
  running_queries_.clear();
  waiting_for_devices_.clear();
}

void JobController::Impl::Log(v1::Level level, const std::string& job_id,
                              const std::string& text) const {
  if (hooks_.log) hooks_.log(level, job_id, text);
}

void JobController::Impl::Commit(JobStore::WriteFn write, std::function<void(absl::Status)> then) {
  store_->Write(std::move(write), [loop = loop_, then = std::move(then)](absl::Status status) {
    loop->Post([then, status] { then(status); });
  });
}

void JobController::Impl::Change(const std::string& job_id, JobChange change,
                                 std::optional<JobReply> reply) {
  struct Changed {
    v1::Job job;
    v1::JobState from = v1::JOB_STATE_UNSPECIFIED;
  };
  auto changed = std::make_shared<Changed>();
  Commit(
      [job_id, change = std::move(change), changed, now = clock_->Now()](StoreWriter& store) {
        FT_ASSIGN_OR_RETURN(changed->job, store.GetJob(job_id));
        changed->from = changed->job.state();
        return change(store, &changed->job, now);
      },
      [this, job_id, changed, reply](absl::Status status) {
        if (!status.ok()) {
          if (reply) return (*reply)(status);
          return Log(v1::WARNING, job_id, status.ToString());
        }
        OnCommitted(changed->job, changed->from);
        if (reply) (*reply)(changed->job);
      });
}

void JobController::Impl::OnCommitted(const v1::Job& job, v1::JobState from) {
  const std::string& id = job.job_id();
  if (IsFinal(job.state())) {
    jobs_.erase(id);
    not_before_.erase(id);
    pending_written_.erase(id);
  } else {
    jobs_[id] = job;
  }
  if (auto it = dependency_states_.find(id); it != dependency_states_.end()) {
    it->second = job.state();
  }
  if (from != job.state()) {
    if (hooks_.on_state) hooks_.on_state(job, from);
    // A verb of a person starts afresh: no waiting for the back-off of an earlier crash.
    if (from == v1::PAUSED || IsFinal(from)) not_before_.erase(id);
    if (Worker* worker = LiveWorkerOf(id)) SyncCommand(*worker);
    if (job.state() == v1::VALIDATING) StartValidation(id);
  }
  ScheduleSoon();
}

void JobController::Impl::ScheduleSoon() {
  if (std::exchange(schedule_posted_, true)) return;
  loop_->Post([this] {
    schedule_posted_ = false;
    Schedule();
  });
}

void JobController::Impl::Tick() {
  std::vector<std::string> tokens;
  for (const auto& [token, worker] : workers_) tokens.push_back(token);
  for (const std::string& token : tokens) {
    if (Worker* worker = FindWorker(token)) Supervise(*worker);
  }
  Schedule();
}

// ---- the public face ----

JobController::JobController(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
JobController::~JobController() = default;

absl::StatusOr<std::unique_ptr<JobController>> JobController::Start(ControllerOptions options,
                                                                    Dependencies dependencies,
                                                                    ControllerHooks hooks) {
  if (options.worker_socket.empty()) options.worker_socket = WorkerSocketPath(options.data_dir);
  auto impl = std::make_unique<Impl>(std::move(options), std::move(dependencies), std::move(hooks));
  FT_RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<JobController>(new JobController(std::move(impl)));
}

void JobController::Shutdown() { impl_->Shutdown(); }

void JobController::Create(v1::CreateJobRequest request, JobCallback done) {
  impl_->Create(std::move(request), Reply<absl::StatusOr<v1::Job>>(std::move(done)));
}
void JobController::Cancel(std::string job_id, JobCallback done) {
  impl_->Cancel(job_id, Reply<absl::StatusOr<v1::Job>>(std::move(done)));
}
void JobController::Pause(std::string job_id, JobCallback done) {
  impl_->Pause(job_id, Reply<absl::StatusOr<v1::Job>>(std::move(done)));
}
void JobController::Resume(std::string job_id, JobCallback done) {
  impl_->Resume(job_id, Reply<absl::StatusOr<v1::Job>>(std::move(done)));
}
void JobController::Rerun(v1::RerunJobRequest request, JobCallback done) {
  impl_->Rerun(request, Reply<absl::StatusOr<v1::Job>>(std::move(done)));
}
void JobController::Update(v1::UpdateJobRequest request, JobCallback done) {
  impl_->Update(request, Reply<absl::StatusOr<v1::Job>>(std::move(done)));
}
void JobController::Delete(std::string job_id, std::function<void(absl::Status)> done) {
  impl_->Delete(job_id, Reply<absl::Status>(std::move(done)));
}
void JobController::Validate(v1::ValidateJobRequest request,
                             std::function<void(absl::StatusOr<v1::ValidateJobResponse>)> done) {
  impl_->Validate(request, Reply<absl::StatusOr<v1::ValidateJobResponse>>(std::move(done)));
}
void JobController::Estimate(v1::EstimateJobRequest request,
                             std::function<void(absl::StatusOr<v1::EstimateJobResponse>)> done) {
  impl_->Estimate(request, Reply<absl::StatusOr<v1::EstimateJobResponse>>(std::move(done)));
}
void JobController::Inspect(v1::InspectModelRequest request,
                            std::function<void(absl::StatusOr<v1::InspectModelResponse>)> done) {
  impl_->Inspect(request, Reply<absl::StatusOr<v1::InspectModelResponse>>(std::move(done)));
}
void JobController::Preview(v1::PreviewDatasetRequest request,
                            std::function<void(absl::StatusOr<v1::PreviewDatasetResponse>)> done) {
  impl_->Preview(request, Reply<absl::StatusOr<v1::PreviewDatasetResponse>>(std::move(done)));
}
void JobController::GetQueue(std::function<void(absl::StatusOr<v1::GetQueueResponse>)> done) {
  impl_->GetQueue(Reply<absl::StatusOr<v1::GetQueueResponse>>(std::move(done)));
}
void JobController::ListDevices(std::function<void(absl::StatusOr<v1::ListDevicesResponse>)> done) {
  impl_->ListDevices(Reply<absl::StatusOr<v1::ListDevicesResponse>>(std::move(done)));
}

}  // namespace finetuned
