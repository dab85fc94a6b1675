// FineTuningService as callback reactors: checks the shape of a request, hands it on, turns the
// answer into messages and google.rpc errors. What a verb means is decided behind JobVerbs,
// JobStore and the artifacts' folder.
//
// Threads: gRPC's. None ever waits: reads go through JobStore::Read, files through the work pool,
// verbs through callbacks.
#pragma once

#include <atomic>
#include <memory>

#include "finetuned/v1/service.grpc.pb.h"
#include "server/api/job_verbs.h"
#include "server/api/watch.h"
#include "server/api/work_pool.h"
#include "server/store/event_hub.h"
#include "server/store/job_store.h"

namespace finetuned {

class FileTransfers;

// Nothing is owned; all of it outlives the service.
struct ServiceParts {
  JobStore* store = nullptr;
  EventHub* hub = nullptr;
  JobVerbs* verbs = nullptr;
  FileTransfers* files = nullptr;
  WorkPool* pool = nullptr;
  WatchRegistry* watches = nullptr;
  // version, data_dir, roots and start_time; the rest is filled in for each call.
  v1::ServerInfo info;
};

// WatchJob passes events as the bytes the store holds.
class FineTuningServiceImpl : public v1::FineTuningService::WithRawCallbackMethod_WatchJob<
                                  v1::FineTuningService::CallbackService> {
 public:
  explicit FineTuningServiceImpl(ServiceParts parts) : parts_(std::move(parts)) {}

  // New calls are answered UNAVAILABLE from now on.
  void Stop() { stopping_ = true; }

#define FT_UNARY(verb, request, response)                                                     \
  grpc::ServerUnaryReactor* verb(grpc::CallbackServerContext* context, const v1::request* in, \
                                 v1::response* out) override;
  FT_UNARY(CreateJob, CreateJobRequest, Job)
  FT_UNARY(ValidateJob, ValidateJobRequest, ValidateJobResponse)
  FT_UNARY(EstimateJob, EstimateJobRequest, EstimateJobResponse)
  FT_UNARY(InspectModel, InspectModelRequest, InspectModelResponse)
  FT_UNARY(PreviewDataset, PreviewDatasetRequest, PreviewDatasetResponse)
  FT_UNARY(GetJob, GetJobRequest, Job)
  FT_UNARY(ListJobs, ListJobsRequest, ListJobsResponse)
  FT_UNARY(CancelJob, CancelJobRequest, Job)
  FT_UNARY(PauseJob, PauseJobRequest, Job)
  FT_UNARY(ResumeJob, ResumeJobRequest, Job)
  FT_UNARY(RerunJob, RerunJobRequest, Job)
  FT_UNARY(DeleteJob, DeleteJobRequest, DeleteJobResponse)
  FT_UNARY(UpdateJob, UpdateJobRequest, Job)
  FT_UNARY(GetQueue, GetQueueRequest, GetQueueResponse)
  FT_UNARY(ListEvents, ListEventsRequest, ListEventsResponse)
  FT_UNARY(ListMetrics, ListMetricsRequest, ListMetricsResponse)
  FT_UNARY(ListCheckpoints, ListCheckpointsRequest, ListCheckpointsResponse)
  FT_UNARY(ListEvaluations, ListEvaluationsRequest, ListEvaluationsResponse)
  FT_UNARY(ListArtifacts, ListArtifactsRequest, ListArtifactsResponse)
  FT_UNARY(QueryUpload, QueryUploadRequest, QueryUploadResponse)
  FT_UNARY(Evaluate, CreateJobRequest, Job)
  FT_UNARY(Export, CreateJobRequest, Job)
  FT_UNARY(Merge, CreateJobRequest, Job)
  FT_UNARY(Generate, CreateJobRequest, Job)
  FT_UNARY(Prepare, CreateJobRequest, Job)
  FT_UNARY(DiagnoseJob, DiagnoseJobRequest, DiagnoseJobResponse)
  FT_UNARY(CompareJobs, CompareJobsRequest, CompareJobsResponse)
  FT_UNARY(ProfileJob, ProfileJobRequest, ProfileJobResponse)
  FT_UNARY(GetServerInfo, GetServerInfoRequest, ServerInfo)
  FT_UNARY(ListDevices, ListDevicesRequest, ListDevicesResponse)
  FT_UNARY(ListModels, ListModelsRequest, ListModelsResponse)
  FT_UNARY(DrainDevice, DrainDeviceRequest, Device)
  FT_UNARY(UndrainDevice, UndrainDeviceRequest, Device)
#undef FT_UNARY

  grpc::ServerWriteReactor<grpc::ByteBuffer>* WatchJob(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* in) override;
  grpc::ServerReadReactor<v1::UploadFileRequest>* UploadFile(grpc::CallbackServerContext* context,
                                                             v1::UploadFileResponse* out) override;
  grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* DownloadArtifact(
      grpc::CallbackServerContext* context, const v1::DownloadArtifactRequest* in) override;

 private:
  // OK while the server takes calls.
  absl::Status Serving() const;
  // True when the call was answered with an error: the server is stopping, or the check failed.
  bool Refused(grpc::ServerUnaryReactor* reactor, const absl::Status& check) const;
  // CreateJob for a verb that fixes the kind.
  grpc::ServerUnaryReactor* CreateKind(grpc::CallbackServerContext* context,
                                       const std::string& kind, const v1::CreateJobRequest* in,
                                       v1::Job* out);

  const ServiceParts parts_;
  std::atomic<bool> stopping_{false};
};

}  // namespace finetuned
