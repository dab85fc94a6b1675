// The supervisor's JobController as the API's JobVerbs.
#pragma once

#include <utility>

#include "server/api/job_verbs.h"
#include "server/supervisor/job_controller.h"

namespace finetuned {

class ControllerVerbs : public JobVerbs {
 public:
  // Not owned; outlives this.
  explicit ControllerVerbs(JobController* controller) : controller_(*controller) {}

  void Create(v1::CreateJobRequest request, Done<v1::Job> done) override {
    controller_.Create(std::move(request), std::move(done));
  }
  void Cancel(std::string job_id, Done<v1::Job> done) override {
    controller_.Cancel(std::move(job_id), std::move(done));
  }
  void Pause(std::string job_id, Done<v1::Job> done) override {
    controller_.Pause(std::move(job_id), std::move(done));
  }
  void Resume(std::string job_id, Done<v1::Job> done) override {
    controller_.Resume(std::move(job_id), std::move(done));
  }
  void Rerun(v1::RerunJobRequest request, Done<v1::Job> done) override {
    controller_.Rerun(std::move(request), std::move(done));
  }
  void Update(v1::UpdateJobRequest request, Done<v1::Job> done) override {
    controller_.Update(std::move(request), std::move(done));
  }
  void Delete(std::string job_id, std::function<void(absl::Status)> done) override {
    controller_.Delete(std::move(job_id), std::move(done));
  }
  void Validate(v1::ValidateJobRequest request, Done<v1::ValidateJobResponse> done) override {
    controller_.Validate(std::move(request), std::move(done));
  }
  void Estimate(v1::EstimateJobRequest request, Done<v1::EstimateJobResponse> done) override {
    controller_.Estimate(std::move(request), std::move(done));
  }
  void Inspect(v1::InspectModelRequest request, Done<v1::InspectModelResponse> done) override {
    controller_.Inspect(std::move(request), std::move(done));
  }
  void Preview(v1::PreviewDatasetRequest request, Done<v1::PreviewDatasetResponse> done) override {
    controller_.Preview(std::move(request), std::move(done));
  }
  void GetQueue(Done<v1::GetQueueResponse> done) override { controller_.GetQueue(std::move(done)); }
  void ListDevices(Done<v1::ListDevicesResponse> done) override {
    controller_.ListDevices(std::move(done));
  }

 private:
  JobController& controller_;
};

}  // namespace finetuned
