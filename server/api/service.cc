#include "server/api/service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"
#include "server/api/history.h"
#include "server/api/model_listing.h"
#include "server/api/not_built.h"
#include "server/api/request_checks.h"
#include "server/api/transfer.h"

namespace finetuned {

using Context = grpc::CallbackServerContext;
using Reactor = grpc::ServerUnaryReactor;

namespace {

// Answers stay below what clients accept by default (4 MiB).
constexpr size_t kMaxAnswerBytes = 3 << 20;

// Gives an error on a job its stable reason, where what is behind the API gave none.
absl::Status OnJob(absl::Status status, const std::string& job_id) {
  if (status.ok() || !ReasonOf(status).empty()) return status;
  if (absl::IsNotFound(status))
    return WithHelp(WithReason(status, "JOB_NOT_FOUND", {{"job_id", job_id}}), "list the jobs",
                    "finetune list");
  if (absl::IsFailedPrecondition(status))
    return WithReason(status, "WRONG_STATE", {{"job_id", job_id}});
  return status;
}

// A callback that sends the value or the error.
template <typename T>
std::function<void(absl::StatusOr<T>)> Answer(Reactor* reactor, T* out) {
  return [reactor, out](absl::StatusOr<T> result) {
    if (result.ok()) *out = *std::move(result);
    reactor->Finish(ToGrpcStatus(result.status()));
  };
}
std::function<void(absl::StatusOr<v1::Job>)> AnswerJob(Reactor* reactor, v1::Job* out,
                                                       const std::string& job_id) {
  return [reactor, out, job_id](absl::StatusOr<v1::Job> result) {
    if (result.ok()) *out = *std::move(result);
    reactor->Finish(ToGrpcStatus(OnJob(result.status(), job_id)));
  };
}

// A request that names a job and nothing else to check.
template <typename Request>
absl::Status CheckNamesJob(const Request& request) {
  FT_RETURN_IF_ERROR(CheckShape(request));
  return CheckJobId("job_id", request.job_id());
}

template <typename Request>
absl::Status CheckHasSpec(const Request& request) {
  FT_RETURN_IF_ERROR(CheckShape(request));
  return request.has_spec() ? absl::OkStatus()
                            : InvalidField("spec", "the request holds no job", "a JobSpec");
}

// Reads the whole log into a History (history.h) and answers with what `list` makes of it.
template <typename History, typename Response, typename List>
void AnswerFromLog(JobStore* store, const std::string& job_id, Reactor* reactor, Response* out,
                   List list) {
  auto history = std::make_shared<History>();
  ScanEvents(
      store, job_id, [history](const v1::JobEvent& event) { history->Visit(event); },
      [history, reactor, out, job_id, list](absl::Status status) {
        if (status.ok()) *out = list(*history);
        reactor->Finish(ToGrpcStatus(OnJob(status, job_id)));
      });
}

absl::Status CheckMetricNames(const v1::ListMetricsRequest& request) {
  FT_RETURN_IF_ERROR(CheckNamesJob(request));
  FT_RETURN_IF_ERROR(CheckRange("max_points", request.max_points(), 0, 100000));
  const auto& known = MetricHistory::Names();
  for (const std::string& name : request.names())
    if (std::find(known.begin(), known.end(), name) == known.end())
      return InvalidField("names", absl::StrCat("'", absl::CHexEscape(name.substr(0, 80)), "' is no metric"),
                          absl::StrJoin(known, ", "));
  return absl::OkStatus();
}

absl::Status CheckPreviewDataset(const v1::PreviewDatasetRequest& request) {
  FT_RETURN_IF_ERROR(CheckHasSpec(request));
  return CheckRange("samples", request.samples(), 0, 100);
}

absl::Status CheckRerunJob(const v1::RerunJobRequest& request) {
  FT_RETURN_IF_ERROR(CheckNamesJob(request));
  if (request.minimal())
    return NotBuilt("RerunJob with minimal", "the short trial of all stages",
                    "make a job with train_samples and max_steps set low",
                    "finetune submit job.yaml --set train_samples=32 --set max_steps=4");
  if (request.reset_optimizer())
    return NotBuilt("RerunJob with reset_optimizer", "a checkpoint without its optimizer state",
                    "rerun from an earlier checkpoint",
                    "finetune rerun JOB --from-checkpoint STEP");
  if (request.salvage())
    return NotBuilt("RerunJob with salvage", "reading the undamaged parts of a damaged checkpoint",
                    "rerun from an earlier checkpoint",
                    "finetune rerun JOB --from-checkpoint STEP");
  if (request.has_from_checkpoint())
    FT_RETURN_IF_ERROR(CheckRange("from_checkpoint", request.from_checkpoint(), 0, INT64_MAX));
  return absl::OkStatus();
}

absl::Status CheckListEvents(const v1::ListEventsRequest& request) {
  FT_RETURN_IF_ERROR(CheckNamesJob(request));
  FT_RETURN_IF_ERROR(CheckRange("after_seq", request.after_seq(), 0, INT64_MAX));
  return CheckRange("page_size", request.page_size(), 0, 10000);
}

}  // namespace

absl::Status FineTuningServiceImpl::Serving() const {
  if (!stopping_) return absl::OkStatus();
  return WithReason(absl::UnavailableError(
                        "the server is stopping and takes no new calls; try again in a moment"),
                    "SERVER_STOPPING");
}

bool FineTuningServiceImpl::Refused(Reactor* reactor, const absl::Status& check) const {
  absl::Status status = Serving();
  if (status.ok()) status = check;
  if (!status.ok()) reactor->Finish(ToGrpcStatus(status));
  return !status.ok();
}

Reactor* FineTuningServiceImpl::CreateJob(Context* context, const v1::CreateJobRequest* in,
                                          v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckCreateJob(*in))) return reactor;
  v1::CreateJobRequest request = *in;
  if (request.owner().empty()) request.set_owner("anonymous");
  parts_.verbs->Create(std::move(request), Answer(reactor, out));
  return reactor;
}

Reactor* FineTuningServiceImpl::CreateKind(Context* context, const std::string& kind,
                                           const v1::CreateJobRequest* in, v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  absl::Status check = CheckCreateJob(*in);
  if (check.ok() && !in->spec().kind().empty() && in->spec().kind() != kind)
    check = InvalidField("spec.kind", absl::StrCat("kind is '", in->spec().kind(), "'"),
                         absl::StrCat(kind, " (or leave it out); CreateJob takes every kind"));
  if (Refused(reactor, check)) return reactor;
  v1::CreateJobRequest request = *in;
  request.mutable_spec()->set_kind(kind);
  if (request.owner().empty()) request.set_owner("anonymous");
  parts_.verbs->Create(std::move(request), Answer(reactor, out));
  return reactor;
}

Reactor* FineTuningServiceImpl::Export(Context* context, const v1::CreateJobRequest* in,
                                       v1::Job* out) {
  return CreateKind(context, "export", in, out);
}
Reactor* FineTuningServiceImpl::Merge(Context* context, const v1::CreateJobRequest* in,
                                      v1::Job* out) {
  return CreateKind(context, "merge", in, out);
}
Reactor* FineTuningServiceImpl::Generate(Context* context, const v1::CreateJobRequest* in,
                                         v1::Job* out) {
  return CreateKind(context, "generate", in, out);
}

Reactor* FineTuningServiceImpl::ValidateJob(Context* context, const v1::ValidateJobRequest* in,
                                            v1::ValidateJobResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckHasSpec(*in))) return reactor;
  parts_.verbs->Validate(*in, Answer(reactor, out));
  return reactor;
}

Reactor* FineTuningServiceImpl::EstimateJob(Context* context, const v1::EstimateJobRequest* in,
                                            v1::EstimateJobResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckHasSpec(*in))) return reactor;
  parts_.verbs->Estimate(*in, Answer(reactor, out));
  return reactor;
}

Reactor* FineTuningServiceImpl::InspectModel(Context* context, const v1::InspectModelRequest* in,
                                             v1::InspectModelResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, in->model().empty()
                           ? InvalidField("model", "the request names no model",
                                          "a directory, or a name under a model root")
                           : CheckShape(*in)))
    return reactor;
  parts_.verbs->Inspect(*in, Answer(reactor, out));
  return reactor;
}

Reactor* FineTuningServiceImpl::PreviewDataset(Context* context,
                                               const v1::PreviewDatasetRequest* in,
                                               v1::PreviewDatasetResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckPreviewDataset(*in))) return reactor;
  v1::PreviewDatasetRequest request = *in;
  if (request.samples() == 0) request.set_samples(3);
  parts_.verbs->Preview(std::move(request), Answer(reactor, out));
  return reactor;
}

Reactor* FineTuningServiceImpl::GetJob(Context* context, const v1::GetJobRequest* in,
                                       v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckNamesJob(*in))) return reactor;
  parts_.store->Read([reactor, out, job_id = in->job_id()](StoreReader& reader) {
    AnswerJob(reactor, out, job_id)(reader.GetJob(job_id));
  });
  return reactor;
}

Reactor* FineTuningServiceImpl::ListJobs(Context* context, const v1::ListJobsRequest* in,
                                         v1::ListJobsResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckListJobs(*in))) return reactor;
  parts_.store->Read([reactor, out, request = *in](StoreReader& reader) mutable {
    if (request.page_size() == 0) request.set_page_size(50);
    auto page = reader.ListJobs(request);
    // A page of large jobs is cut rather than refused by the client; the page token goes on from
    // there.
    while (page.ok() && page->ByteSizeLong() > kMaxAnswerBytes && page->jobs_size() > 1) {
      request.set_page_size(std::min(request.page_size(), page->jobs_size()) / 2);
      page = reader.ListJobs(request);
    }
    Answer(reactor, out)(std::move(page));
  });
  return reactor;
}

Reactor* FineTuningServiceImpl::CancelJob(Context* context, const v1::CancelJobRequest* in,
                                          v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckNamesJob(*in))) return reactor;
  parts_.verbs->Cancel(in->job_id(), AnswerJob(reactor, out, in->job_id()));
  return reactor;
}

Reactor* FineTuningServiceImpl::PauseJob(Context* context, const v1::PauseJobRequest* in,
                                         v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckNamesJob(*in))) return reactor;
  parts_.verbs->Pause(in->job_id(), AnswerJob(reactor, out, in->job_id()));
  return reactor;
}

Reactor* FineTuningServiceImpl::ResumeJob(Context* context, const v1::ResumeJobRequest* in,
                                          v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckNamesJob(*in))) return reactor;
  parts_.verbs->Resume(in->job_id(), AnswerJob(reactor, out, in->job_id()));
  return reactor;
}

Reactor* FineTuningServiceImpl::RerunJob(Context* context, const v1::RerunJobRequest* in,
                                         v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckRerunJob(*in))) return reactor;
  parts_.verbs->Rerun(*in, AnswerJob(reactor, out, in->job_id()));
  return reactor;
}

Reactor* FineTuningServiceImpl::DeleteJob(Context* context, const v1::DeleteJobRequest* in,
                                          v1::DeleteJobResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckNamesJob(*in))) return reactor;
  parts_.verbs->Delete(in->job_id(), [reactor, job_id = in->job_id()](absl::Status status) {
    reactor->Finish(ToGrpcStatus(OnJob(status, job_id)));
  });
  return reactor;
}

Reactor* FineTuningServiceImpl::UpdateJob(Context* context, const v1::UpdateJobRequest* in,
                                          v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckUpdateJob(*in))) return reactor;
  parts_.verbs->Update(*in, AnswerJob(reactor, out, in->job_id()));
  return reactor;
}

Reactor* FineTuningServiceImpl::GetQueue(Context* context, const v1::GetQueueRequest* in,
                                         v1::GetQueueResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, absl::OkStatus())) return reactor;
  parts_.verbs->GetQueue(Answer(reactor, out));
  return reactor;
}

Reactor* FineTuningServiceImpl::ListEvents(Context* context, const v1::ListEventsRequest* in,
                                           v1::ListEventsResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckListEvents(*in))) return reactor;
  parts_.store->Read([reactor, out, request = *in](StoreReader& reader) {
    const absl::Status status = [&]() -> absl::Status {
      FT_RETURN_IF_ERROR(reader.GetJob(request.job_id()).status());
      FT_ASSIGN_OR_RETURN(const int64_t last, reader.LastSeq(request.job_id()));
      FT_ASSIGN_OR_RETURN(
          auto events, reader.EventsAfter(request.job_id(), request.after_seq(),
                                          request.page_size() == 0 ? 1000 : request.page_size()));
      size_t bytes = 0;
      int64_t seq = request.after_seq();
      for (const auto& event : events) {
        bytes += event->size() + 8;
        if (bytes > kMaxAnswerBytes && out->events_size() > 0) break;
        if (!out->add_events()->ParseFromString(*event))
          return absl::DataLossError(
              absl::StrCat("event ", seq + 1, " of job ", request.job_id(), " cannot be read"));
        ++seq;
      }
      if (seq < last && !events.empty()) out->set_next_after_seq(seq);
      return absl::OkStatus();
    }();
    reactor->Finish(ToGrpcStatus(OnJob(status, request.job_id())));
  });
  return reactor;
}

Reactor* FineTuningServiceImpl::ListMetrics(Context* context, const v1::ListMetricsRequest* in,
                                            v1::ListMetricsResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckMetricNames(*in))) return reactor;
  const std::vector<std::string> names(in->names().begin(), in->names().end());
  const int points = in->max_points() == 0 ? 1000 : in->max_points();
  AnswerFromLog<MetricHistory>(
      parts_.store, in->job_id(), reactor, out,
      [names, points](const MetricHistory& history) { return history.Series(names, points); });
  return reactor;
}

Reactor* FineTuningServiceImpl::ListCheckpoints(Context* context,
                                                const v1::ListCheckpointsRequest* in,
                                                v1::ListCheckpointsResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckNamesJob(*in))) return reactor;
  AnswerFromLog<CheckpointHistory>(parts_.store, in->job_id(), reactor, out,
                                   [](const auto& history) { return history.List(); });
  return reactor;
}

Reactor* FineTuningServiceImpl::ListEvaluations(Context* context,
                                                const v1::ListEvaluationsRequest* in,
                                                v1::ListEvaluationsResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckNamesJob(*in))) return reactor;
  AnswerFromLog<EvaluationHistory>(parts_.store, in->job_id(), reactor, out,
                                   [](const auto& history) { return history.List(); });
  return reactor;
}

Reactor* FineTuningServiceImpl::ListArtifacts(Context* context, const v1::ListArtifactsRequest* in,
                                              v1::ListArtifactsResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckNamesJob(*in))) return reactor;
  AnswerFromLog<ArtifactHistory>(parts_.store, in->job_id(), reactor, out,
                                 [](const auto& history) { return history.List(); });
  return reactor;
}

Reactor* FineTuningServiceImpl::Evaluate(Context* context, const v1::CreateJobRequest* in,
                                         v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(
          reactor,
          NotBuilt("Evaluate", "evaluation as a job of its own",
                   "a fine-tuning job evaluates the base and the tuned model on the same samples",
                   "finetune submit job.yaml")))
    return reactor;
  return reactor;
}
Reactor* FineTuningServiceImpl::Prepare(Context* context, const v1::CreateJobRequest* in,
                                        v1::Job* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, NotBuilt("Prepare", "dataset preparation as a job of its own",
                                "PreviewDataset shows the first samples; a fine-tuning job "
                                "prepares its data as its first stage",
                                "finetune preview job.yaml")))
    return reactor;
  return reactor;
}
Reactor* FineTuningServiceImpl::DiagnoseJob(Context* context, const v1::DiagnoseJobRequest* in,
                                            v1::DiagnoseJobResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor,
              NotBuilt("DiagnoseJob", "the rules over what a run reports",
                       "a failed job carries its reason, first error and suggested settings",
                       "finetune get JOB")))
    return reactor;
  return reactor;
}
Reactor* FineTuningServiceImpl::CompareJobs(Context* context, const v1::CompareJobsRequest* in,
                                            v1::CompareJobsResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor,
              NotBuilt("CompareJobs", "the differences of two jobs",
                       "compare the two jobs' specs and results", "finetune get JOB --spec")))
    return reactor;
  return reactor;
}
Reactor* FineTuningServiceImpl::ProfileJob(Context* context, const v1::ProfileJobRequest* in,
                                           v1::ProfileJobResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor,
              NotBuilt("ProfileJob", "the trace of a running job",
                       "tokens a second, step time and waiting for data are among the metrics",
                       "finetune watch JOB")))
    return reactor;
  return reactor;
}
Reactor* FineTuningServiceImpl::DrainDevice(Context* context, const v1::DrainDeviceRequest* in,
                                            v1::Device* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor,
              NotBuilt("DrainDevice", "taking a device out of scheduling",
                       "hold the jobs that wait, and pause those that run", "finetune pause JOB")))
    return reactor;
  return reactor;
}
Reactor* FineTuningServiceImpl::UndrainDevice(Context* context, const v1::UndrainDeviceRequest* in,
                                              v1::Device* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, NotBuilt("UndrainDevice", "taking a device out of scheduling",
                                "every usable device takes jobs", "finetune devices")))
    return reactor;
  return reactor;
}

Reactor* FineTuningServiceImpl::GetServerInfo(Context* context, const v1::GetServerInfoRequest* in,
                                              v1::ServerInfo* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, absl::OkStatus())) return reactor;
  *out = parts_.info;
  out->set_max_message_bytes(kMaxMessageBytes);
  parts_.verbs->ListDevices([this, reactor, out](absl::StatusOr<v1::ListDevicesResponse> devices) {
    if (!devices.ok()) return reactor->Finish(ToGrpcStatus(devices.status()));
    *out->mutable_devices() = devices->devices();
    const bool posted = parts_.pool->Post([this, reactor, out] {
      const auto free = FreeDiskBytes(parts_.info.data_dir());
      if (free.ok()) out->set_free_disk_bytes(*free);
      reactor->Finish(ToGrpcStatus(free.status()));
    });
    if (!posted) reactor->Finish(ToGrpcStatus(Serving()));
  });
  return reactor;
}

Reactor* FineTuningServiceImpl::ListDevices(Context* context, const v1::ListDevicesRequest* in,
                                            v1::ListDevicesResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, absl::OkStatus())) return reactor;
  parts_.verbs->ListDevices(Answer(reactor, out));
  return reactor;
}

Reactor* FineTuningServiceImpl::ListModels(Context* context, const v1::ListModelsRequest* in,
                                           v1::ListModelsResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, absl::OkStatus())) return reactor;
  const bool posted = parts_.pool->Post([this, reactor, out] {
    *out = ListModelsUnder({parts_.info.model_roots().begin(), parts_.info.model_roots().end()});
    reactor->Finish(grpc::Status::OK);
  });
  if (!posted) reactor->Finish(ToGrpcStatus(Serving()));
  return reactor;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* FineTuningServiceImpl::WatchJob(
    Context*, const grpc::ByteBuffer* in) {
  if (absl::Status status = Serving(); !status.ok()) return RefuseWatch(status);
  return StartWatch(parts_.store, parts_.hub, parts_.watches, *in);
}

Reactor* FineTuningServiceImpl::QueryUpload(Context* context, const v1::QueryUploadRequest* in,
                                            v1::QueryUploadResponse* out) {
  Reactor* reactor = context->DefaultReactor();
  if (Refused(reactor, CheckSha256("sha256", in->sha256()))) return reactor;
  const bool posted = parts_.pool->Post([this, reactor, out, sha256 = in->sha256()] {
    Answer(reactor, out)(parts_.files->Query(sha256));
  });
  if (!posted) reactor->Finish(ToGrpcStatus(Serving()));
  return reactor;
}

grpc::ServerReadReactor<v1::UploadFileRequest>* FineTuningServiceImpl::UploadFile(
    Context*, v1::UploadFileResponse* out) {
  return StartUpload(parts_.files, parts_.pool, out, Serving());
}

grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* FineTuningServiceImpl::DownloadArtifact(
    Context*, const v1::DownloadArtifactRequest* in) {
  return StartDownload(parts_.files, parts_.pool, *in, Serving());
}

}  // namespace finetuned
