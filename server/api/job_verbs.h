// The verbs on jobs as the API needs them. The server passes the supervisor's JobController in
// (ControllerVerbs); tests pass a fake in.
//
// Threads: called from gRPC threads; each call returns at once and its callback runs exactly once,
// on any thread.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "finetuned/v1/service.pb.h"

namespace finetuned {

class JobVerbs {
 public:
  template <typename T>
  using Done = std::function<void(absl::StatusOr<T>)>;

  virtual ~JobVerbs() = default;
  virtual void Create(v1::CreateJobRequest request, Done<v1::Job> done) = 0;
  virtual void Cancel(std::string job_id, Done<v1::Job> done) = 0;
  virtual void Pause(std::string job_id, Done<v1::Job> done) = 0;
  virtual void Resume(std::string job_id, Done<v1::Job> done) = 0;
  virtual void Rerun(v1::RerunJobRequest request, Done<v1::Job> done) = 0;
  virtual void Update(v1::UpdateJobRequest request, Done<v1::Job> done) = 0;
  virtual void Delete(std::string job_id, std::function<void(absl::Status)> done) = 0;
  virtual void Validate(v1::ValidateJobRequest request, Done<v1::ValidateJobResponse> done) = 0;
  virtual void Estimate(v1::EstimateJobRequest request, Done<v1::EstimateJobResponse> done) = 0;
  virtual void Inspect(v1::InspectModelRequest request, Done<v1::InspectModelResponse> done) = 0;
  virtual void Preview(v1::PreviewDatasetRequest request,
                       Done<v1::PreviewDatasetResponse> done) = 0;
  virtual void GetQueue(Done<v1::GetQueueResponse> done) = 0;
  virtual void ListDevices(Done<v1::ListDevicesResponse> done) = 0;
};

}  // namespace finetuned
