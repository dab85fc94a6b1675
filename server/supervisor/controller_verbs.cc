// The verbs on jobs. Each is one transaction that reads the job, asks whether the verb fits its
// state, and changes it.
#include <openssl/rand.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"
#include "proto/spec/spec.h"
#include "server/store/job_state.h"
#include "server/supervisor/controller_impl.h"

namespace finetuned {
namespace {

constexpr int kMaxPriority = 1000;
constexpr size_t kMaxEntries = 64;
constexpr size_t kMaxEntryBytes = 16 << 10;

// 60 random bits in letters and digits that are not mistaken for each other.
std::string NewJobId() {
  static constexpr char kAlphabet[] = "abcdefghjkmnpqrstuvwxyz23456789x";
  unsigned char random[12];
  RAND_bytes(random, sizeof(random));
  std::string id = "job-";
  for (unsigned char byte : random) id.push_back(kAlphabet[byte & 31]);
  return id;
}

std::string NewRequestId() {
  unsigned char random[16];
  RAND_bytes(random, sizeof(random));
  return absl::StrCat("server-",
                      absl::BytesToHexString({reinterpret_cast<char*>(random), sizeof(random)}));
}

absl::Status WrongState(const v1::Job& job, const char* verb, const char* allowed) {
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat("job ", job.job_id(), " is ", JobStateName(job.state()),
                                     " and cannot be ", verb, "; allowed: ", allowed)),
                    "WRONG_STATE",
                    {{"job_id", job.job_id()}, {"state", v1::JobState_Name(job.state())}});
}

absl::Status CheckMap(const google::protobuf::Map<std::string, std::string>& map,
                      const std::string& field) {
  size_t bytes = 0;
  for (const auto& [key, value] : map) {
    bytes += key.size() + value.size();
    if (key.empty()) return InvalidField(field, "a key is empty", "any other text");
    if (absl::StartsWith(key, kReservedMetadataPrefix)) {
      return InvalidField(field, absl::StrCat("key \"", key, "\" is reserved"),
                          absl::StrCat("keys that do not begin with ", kReservedMetadataPrefix));
    }
  }
  if (map.size() > kMaxEntries || bytes > kMaxEntryBytes) {
    return InvalidField(
        field, absl::StrCat(map.size(), " entries of ", bytes, " bytes"),
        absl::StrCat("at most ", kMaxEntries, " entries and ", kMaxEntryBytes, " bytes in all"));
  }
  return absl::OkStatus();
}

absl::Status CheckPriority(int32_t priority) {
  if (priority >= -kMaxPriority && priority <= kMaxPriority) return absl::OkStatus();
  return InvalidField("priority", absl::StrCat("priority is ", priority), "-1000…1000");
}

absl::Status CheckRequest(const v1::CreateJobRequest& request) {
  FT_RETURN_IF_ERROR(CheckPriority(request.priority()));
  FT_RETURN_IF_ERROR(CheckMap(request.metadata(), "metadata"));
  FT_RETURN_IF_ERROR(CheckMap(request.labels(), "labels"));
  if (request.request_id().size() > 128) {
    return InvalidField("request_id",
                        absl::StrCat("request_id has ", request.request_id().size(), " bytes"),
                        "at most 128; a UUID is usual");
  }
  return absl::OkStatus();
}

// The job a request id made, if it did; ALREADY_EXISTS when its spec was another.
absl::StatusOr<std::optional<v1::Job>> Earlier(StoreReader& store,
                                               const v1::CreateJobRequest& request) {
  if (request.request_id().empty()) return std::nullopt;
  FT_ASSIGN_OR_RETURN(std::optional<v1::Job> job, store.FindByRequestId(request.request_id()));
  if (job && SpecFingerprint(job->submitted_spec()) != SpecFingerprint(request.spec())) {
    return WithReason(
        absl::AlreadyExistsError(absl::StrCat(
            "request_id ", request.request_id(), " made job ", job->job_id(),
            " of another spec; send the same spec, or a new request_id for a new job")),
        "REQUEST_ID_TAKEN", {{"job_id", job->job_id()}});
  }
  return job;
}

// Nothing runs for the job in these states: a stop is a change of state alone.
bool IsIdle(v1::JobState state) {
  return state == v1::VALIDATING || state == v1::QUEUED || state == v1::PAUSED;
}

std::string OverrideKey(const std::string& setting) {
  return std::string(absl::StripAsciiWhitespace(setting.substr(0, setting.find('='))));
}

}  // namespace

void JobController::Impl::Create(v1::CreateJobRequest request, JobReply reply) {
  if (absl::Status status = CheckRequest(request); !status.ok()) return reply(status);
  auto create = [this, request, reply](const SpecCheck& check) {
    auto job = std::make_shared<v1::Job>();
    job->set_job_id(NewJobId());
    job->set_request_id(request.request_id().empty() ? NewRequestId() : request.request_id());
    job->set_owner(request.owner().empty() ? "anonymous" : request.owner());
    job->set_state(v1::VALIDATING);
    job->set_priority(request.priority());
    *job->mutable_labels() = request.labels();
    *job->mutable_metadata() = request.metadata();
    *job->mutable_after() = request.after();
    *job->mutable_submitted_spec() = request.spec();
    *job->mutable_resolved_spec() = check.resolved;
    job->set_held(request.held());
    SetTimestamp(clock_->Now(), job->mutable_create_time());
    auto created = std::make_shared<bool>(false);
    auto dependencies = std::make_shared<std::map<std::string, v1::JobState>>();
    Commit(
        [request, job, created, dependencies, now = clock_->Now()](StoreWriter& store) {
          // Once more, inside the transaction: of many calls at once, one makes the job.
          FT_ASSIGN_OR_RETURN(std::optional<v1::Job> earlier, Earlier(store, request));
          if (earlier) {
            *job = *std::move(earlier);
            return absl::OkStatus();
          }
          for (const std::string& id : request.after()) {
            auto dependency = store.GetJob(id);
            if (!dependency.ok()) {
              return WithReason(
                  absl::FailedPreconditionError(absl::StrCat("after: there is no job ", id)),
                  "NO_SUCH_DEPENDENCY");
            }
            (*dependencies)[id] = dependency->state();
          }
          FT_RETURN_IF_ERROR(store.InsertJob(*job));
          v1::JobEvent event;
          event.set_level(v1::INFO);
          event.mutable_state()->set_to(v1::VALIDATING);
          event.mutable_state()->set_reason("accepted");
          FT_RETURN_IF_ERROR(AppendJobEvent(store, job.get(), std::move(event), now));
          *created = true;
          return store.UpdateJob(*job);
        },
        [this, job, created, dependencies, reply](absl::Status status) {
          if (!status.ok()) return reply(status);
          if (*created) {
            dependency_states_.insert(dependencies->begin(), dependencies->end());
            OnCommitted(*job, v1::JOB_STATE_UNSPECIFIED);
          }
          reply(*job);
        });
  };
  ReadThen<absl::StatusOr<std::optional<v1::Job>>>(
      [request](StoreReader& store) { return Earlier(store, request); },
      [this, request, reply, create](absl::StatusOr<std::optional<v1::Job>> earlier) {
        if (!earlier.ok()) return reply(earlier.status());
        if (earlier->has_value()) return reply(**std::move(earlier));
        Check(request.spec(), [reply, create](absl::StatusOr<SpecCheck> check) {
          if (!check.ok()) return reply(check.status());
          if (HasErrors(check->problems)) return reply(InvalidSpec(check->problems));
          create(*check);
        });
      });
}

void JobController::Impl::Cancel(const std::string& job_id, JobReply reply) {
  Change(
      job_id,
      [](StoreWriter& store, v1::Job* job, absl::Time now) -> absl::Status {
        if (job->state() == v1::CANCELLING) return absl::OkStatus();
        if (IsFinal(job->state())) return WrongState(*job, "cancelled", "a job that has not ended");
        return ChangeState(store, job, IsIdle(job->state()) ? v1::CANCELLED : v1::CANCELLING,
                           "cancel was asked for", now);
      },
      reply);
}

void JobController::Impl::Pause(const std::string& job_id, JobReply reply) {
  Change(
      job_id,
      [](StoreWriter& store, v1::Job* job, absl::Time now) -> absl::Status {
        if (job->state() == v1::PAUSING) return absl::OkStatus();
        if (job->state() != v1::QUEUED && job->state() != v1::STARTING &&
            job->state() != v1::RUNNING) {
          return WrongState(*job, "paused", "QUEUED, STARTING, RUNNING");
        }
        return ChangeState(store, job, job->state() == v1::QUEUED ? v1::PAUSED : v1::PAUSING,
                           "pause was asked for", now);
      },
      reply);
}

void JobController::Impl::Resume(const std::string& job_id, JobReply reply) {
  Change(
      job_id,
      [](StoreWriter& store, v1::Job* job, absl::Time now) -> absl::Status {
        if (job->state() != v1::PAUSED) return WrongState(*job, "resumed", "PAUSED");
        return ChangeState(store, job, v1::QUEUED, "resume was asked for", now);
      },
      reply);
}

void JobController::Impl::Rerun(const v1::RerunJobRequest& request, JobReply reply) {
  if (request.minimal() || request.reset_optimizer() || request.salvage()) {
    const char* option = request.minimal()           ? "minimal"
                         : request.reset_optimizer() ? "reset_optimizer"
                                                     : "salvage";
    return reply(
        WithReason(absl::UnimplementedError(absl::StrCat("rerun with ", option,
                                                         " is not built yet; from_stage, "
                                                         "from_checkpoint and overrides are")),
                   "NOT_BUILT"));
  }
  for (const std::string& setting : request.overrides()) {
    if (!absl::StrContains(setting, '=')) {
      return reply(InvalidField("overrides", absl::StrCat("\"", setting, "\" is no key=value"),
                                "max_steps=200"));
    }
    if (!OverrideAllowed(OverrideKey(setting), request.from_stage())) {
      return reply(InvalidField(
          "overrides",
          absl::StrCat("\"", setting, "\" changes what finished stages were made from"),
          "num_train_epochs, max_steps, eval_steps, save_steps, evaluation.*, export.*, or any key "
          "with from_stage PREPARING_DATA"));
    }
  }
  if (request.has_from_checkpoint() && request.from_stage() > v1::TRAINING) {
    return reply(InvalidField("from_checkpoint", "from_checkpoint with a stage after the training",
                              "no from_stage, or one up to TRAINING"));
  }
  auto requeue = [this, request, reply](std::optional<v1::JobSpec> spec,
                                        std::optional<v1::Estimate> estimate) {
    Change(
        request.job_id(),
        [request, spec, estimate](StoreWriter& store, v1::Job* job,
                                  absl::Time now) -> absl::Status {
          if (!IsFinal(job->state())) {
            return WrongState(*job, "run again", "SUCCEEDED, FAILED, CANCELLED");
          }
          auto& metadata = *job->mutable_metadata();
          metadata[kRerunAttemptKey] = absl::StrCat(job->attempt());
          if (request.from_stage() != v1::STAGE_UNSPECIFIED) {
            metadata[kRerunStageKey] = v1::Stage_Name(request.from_stage());
          }
          if (request.has_from_checkpoint()) {
            metadata[kRerunCheckpointKey] = absl::StrCat(request.from_checkpoint());
          }
          if (spec) *job->mutable_resolved_spec() = *spec;
          if (estimate) *job->mutable_estimate() = *estimate;
          job->clear_failure();
          std::string reason = "rerun was asked for";
          if (request.from_stage() != v1::STAGE_UNSPECIFIED) {
            absl::StrAppend(&reason, " from ", v1::Stage_Name(request.from_stage()));
          }
          for (const std::string& setting : request.overrides()) {
            absl::StrAppend(&reason, "; ", setting);
          }
          return ChangeState(store, job, v1::QUEUED, reason, now);
        },
        reply);
  };
  ReadThen<absl::StatusOr<v1::Job>>(
      [job_id = request.job_id()](StoreReader& store) { return store.GetJob(job_id); },
      [this, request, reply, requeue](absl::StatusOr<v1::Job> job) {
        if (!job.ok()) return reply(job.status());
        if (!IsFinal(job->state())) {
          return reply(WrongState(*job, "run again", "SUCCEEDED, FAILED, CANCELLED"));
        }
        // A checked and unchanged spec needs no other check.
        if (request.overrides().empty() && job->has_estimate()) {
          return requeue(std::nullopt, std::nullopt);
        }
        v1::JobSpec spec = job->resolved_spec();
        for (const std::string& setting : request.overrides()) {
          const absl::Status status =
              SetKey(&spec, OverrideKey(setting), setting.substr(setting.find('=') + 1));
          if (!status.ok()) return reply(status);
        }
        Check(spec, [this, reply, requeue](absl::StatusOr<SpecCheck> check) {
          if (!check.ok()) return reply(check.status());
          if (HasErrors(check->problems)) return reply(InvalidSpec(check->problems));
          v1::QueryRequest query;
          query.set_kind(v1::QueryRequest::VALIDATE);
          *query.mutable_plan() = check->plan;
          Query(std::move(query), options_.query_timeout,
                [reply, requeue,
                 resolved = check->resolved](absl::StatusOr<v1::QueryResponse> answer) {
                  if (!answer.ok()) return reply(answer.status());
                  std::vector<v1::Problem> problems(answer->problems().begin(),
                                                    answer->problems().end());
                  if (HasErrors(problems)) return reply(InvalidSpec(problems));
                  requeue(answer->has_resolved_spec() ? answer->resolved_spec() : resolved,
                          answer->estimate());
                });
        });
      });
}

void JobController::Impl::Update(const v1::UpdateJobRequest& request, JobReply reply) {
  if (request.has_priority()) {
    if (absl::Status status = CheckPriority(request.priority()); !status.ok()) return reply(status);
  }
  if (absl::Status status = CheckMap(request.labels(), "labels"); !status.ok()) {
    return reply(status);
  }
  Change(
      request.job_id(),
      [request](StoreWriter& store, v1::Job* job, absl::Time now) -> absl::Status {
        if (IsFinal(job->state())) return WrongState(*job, "updated", "a job that has not ended");
        if (request.has_priority()) job->set_priority(request.priority());
        if (request.set_labels()) *job->mutable_labels() = request.labels();
        if (request.has_held()) job->set_held(request.held());
        return store.UpdateJob(*job);
      },
      reply);
}

void JobController::Impl::Delete(const std::string& job_id, Reply<absl::Status> reply) {
  loop_->Post([this, job_id, reply] {
    for (const auto& [id, job] : jobs_) {
      const bool waits =
          std::find(job.after().begin(), job.after().end(), job_id) != job.after().end();
      if (!waits && job.resolved_spec().source().job_id() != job_id) continue;
      return reply(WithReason(absl::FailedPreconditionError(absl::StrCat(
                                  "job ", job_id, " is needed by job ", id, ", which is ",
                                  JobStateName(job.state()), "; cancel that one first")),
                              "JOB_IN_USE"));
    }
    if (HasProcess(job_id)) {
      return reply(WithReason(absl::FailedPreconditionError(
                                  absl::StrCat("the worker process of job ", job_id,
                                               " is still ending; try again in a few seconds")),
                              "WORKER_ENDING"));
    }
    Commit(
        [job_id](StoreWriter& store) -> absl::Status {
          FT_ASSIGN_OR_RETURN(const v1::Job job, store.GetJob(job_id));
          if (!IsFinal(job.state())) {
            return WrongState(job, "deleted", "SUCCEEDED, FAILED, CANCELLED; cancel it first");
          }
          return store.DeleteJob(job_id);
        },
        [this, job_id, reply](absl::Status status) {
          if (status.ok()) status = RemoveAll(JobDirectory(options_.data_dir, job_id));
          reply(status);
        });
  });
}

void JobController::Impl::GetQueue(Reply<absl::StatusOr<v1::GetQueueResponse>> reply) {
  loop_->Post([this, reply] {
    std::vector<const v1::Job*> jobs;
    for (const auto& [id, job] : jobs_) {
      if (job.state() != v1::PAUSED) jobs.push_back(&job);
    }
    std::sort(jobs.begin(), jobs.end(), [](const v1::Job* a, const v1::Job* b) {
      const auto key = [](const v1::Job& job) {
        return std::make_tuple(!HasAttempt(job.state()), -job.priority(),
                               FromTimestamp(job.create_time()), job.job_id());
      };
      return key(*a) < key(*b);
    });
    v1::GetQueueResponse response;
    int position = 0;
    for (const v1::Job* job : jobs) {
      v1::QueueEntry* entry = response.add_entries();
      entry->set_job_id(job->job_id());
      entry->set_priority(job->priority());
      entry->set_state(job->state());
      entry->set_pending_reason(job->pending_reason());
      entry->set_pending_detail(job->pending_detail());
      entry->set_run_name(job->submitted_spec().run_name());
      *entry->mutable_create_time() = job->create_time();
      if (HasAttempt(job->state())) continue;
      entry->set_jobs_ahead(position);
      entry->set_position(++position);
    }
    reply(std::move(response));
  });
}

void JobController::Impl::ListDevices(Reply<absl::StatusOr<v1::ListDevicesResponse>> reply) {
  loop_->Post([this, reply] {
    WhenDevicesKnown([this, reply] {
      v1::ListDevicesResponse response;
      for (v1::Device& device : Devices()) *response.add_devices() = std::move(device);
      reply(std::move(response));
    });
  });
}

}  // namespace finetuned
