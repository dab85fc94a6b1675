// A real gRPC server over the real store and hub in a directory of its own, on TCP and on a unix
// socket, with fakes where worker processes and the artifacts' folder would be.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "finetuned/v1/service.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/errors/rpc_errors.h"
#include "server/api/artifact_files.h"
#include "server/api/grpc_server.h"
#include "server/metrics/metrics.h"
#include "server/store/event_hub.h"
#include "server/store/job_store.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {

// Answers every verb; remembers its name. `Create` stores the job, so that the reads find it.
class FakeVerbs : public JobVerbs {
 public:
  explicit FakeVerbs(JobStore* store) : store_(store) {}

  void Create(v1::CreateJobRequest request, Done<v1::Job> done) override {
    Called("Create");
    v1::Job job;
    job.set_job_id(absl::StrCat("ft-", request.request_id()));
    job.set_request_id(request.request_id());
    job.set_owner(request.owner());
    job.set_state(v1::VALIDATING);
    job.mutable_create_time()->set_seconds(1000);
    *job.mutable_submitted_spec() = request.spec();
    store_->Write(
        [job](StoreWriter& writer) -> absl::Status {
          if (absl::Status status = writer.InsertJob(job); !status.ok()) return status;
          v1::JobEvent event;
          event.mutable_state()->set_to(v1::VALIDATING);
          return writer.AppendEvent(job.job_id(), event).status();
        },
        [job, done](absl::Status status) { status.ok() ? done(job) : done(status); });
  }
  void Cancel(std::string job_id, Done<v1::Job> done) override { Job("Cancel", job_id, done); }
  void Pause(std::string job_id, Done<v1::Job> done) override { Job("Pause", job_id, done); }
  void Resume(std::string job_id, Done<v1::Job> done) override { Job("Resume", job_id, done); }
  void Rerun(v1::RerunJobRequest request, Done<v1::Job> done) override {
    Job("Rerun", request.job_id(), done);
  }
  void Update(v1::UpdateJobRequest request, Done<v1::Job> done) override {
    Job("Update", request.job_id(), done);
  }
  void Delete(std::string job_id, std::function<void(absl::Status)> done) override {
    Called("Delete");
    done(absl::OkStatus());
  }
  void Validate(v1::ValidateJobRequest, Done<v1::ValidateJobResponse> done) override {
    v1::ValidateJobResponse response;
    response.add_problems()->set_field("lora.r");
    Answer("Validate", response, done);
  }
  void Estimate(v1::EstimateJobRequest, Done<v1::EstimateJobResponse> done) override {
    Answer("Estimate", v1::EstimateJobResponse(), done);
  }
  void Inspect(v1::InspectModelRequest, Done<v1::InspectModelResponse> done) override {
    Answer("Inspect", v1::InspectModelResponse(), done);
  }
  void Preview(v1::PreviewDatasetRequest request, Done<v1::PreviewDatasetResponse> done) override {
    preview_samples = request.samples();
    Answer("Preview", v1::PreviewDatasetResponse(), done);
  }
  void GetQueue(Done<v1::GetQueueResponse> done) override {
    v1::GetQueueResponse response;
    response.add_entries()->set_job_id("queued");
    Answer("GetQueue", response, done);
  }
  void ListDevices(Done<v1::ListDevicesResponse> done) override {
    v1::ListDevicesResponse response;
    response.add_devices()->set_id("cpu");
    Answer("ListDevices", response, done);
  }

  bool WasCalled(const std::string& verb) {
    std::lock_guard<std::mutex> lock(mutex_);
    return calls_[verb] > 0;
  }
  int preview_samples = 0;

 private:
  void Called(const std::string& verb) {
    std::lock_guard<std::mutex> lock(mutex_);
    ++calls_[verb];
  }
  template <typename T>
  void Answer(const std::string& verb, T value, const Done<T>& done) {
    Called(verb);
    done(std::move(value));
  }
  // "missing" does not exist; "final" is in the wrong state.
  void Job(const std::string& verb, const std::string& job_id, const Done<v1::Job>& done) {
    Called(verb);
    if (job_id == "missing") return done(absl::NotFoundError("job missing does not exist"));
    if (job_id == "final")
      return done(absl::FailedPreconditionError(verb + ": the job is SUCCEEDED"));
    v1::Job job;
    job.set_job_id(job_id);
    done(job);
  }

  JobStore* const store_;
  std::mutex mutex_;
  std::map<std::string, int> calls_;
};

class ApiTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = OpenSqliteStore({.path = dir_ / "jobs.db"});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    hub_ = std::make_unique<EventHub>(store_.get());
    store_->SetEventListener(
        [this](const std::string& job_id, int64_t seq, std::shared_ptr<const std::string> event) {
          hub_->OnEvent(job_id, seq, std::move(event));
        });
    verbs_ = std::make_unique<FakeVerbs>(store_.get());
    pool_ = std::make_unique<WorkPool>(2);
    UploadStoreOptions upload_options;
    upload_options.root = dir_ / "uploads";
    upload_options.disk_reserve_bytes = 0;
    auto uploads = UploadStore::Open(upload_options);
    ASSERT_TRUE(uploads.ok()) << uploads.status();
    uploads_ = *std::move(uploads);
    files_ = std::make_unique<ArtifactFiles>(
        uploads_.get(), store_.get(),
        [this](const std::string& job_id) { return dir_ / ("jobs/" + job_id); });
    ServiceParts parts;
    parts.store = store_.get();
    parts.hub = hub_.get();
    parts.verbs = verbs_.get();
    parts.files = files_.get();
    parts.pool = pool_.get();
    parts.info.set_version("1.2.3");
    parts.info.set_data_dir(dir_ / ".");
    parts.info.add_model_roots(dir_ / "models");
    socket_ = "unix:" + (dir_ / "api.sock");
    auto server = GrpcServer::Start({"127.0.0.1:0", socket_}, parts, &metrics_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ =
        v1::FineTuningService::NewStub(Channel(absl::StrCat("127.0.0.1:", server_->ports()[0])));
  }
  void TearDown() override {
    server_.reset();
    pool_.reset();
    hub_.reset();
    store_.reset();
  }

  static std::shared_ptr<grpc::Channel> Channel(const std::string& address) {
    grpc::ChannelArguments arguments;
    // Each test its own connection.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxSendMessageSize(-1);
    return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
  }

  // Runs one unary method; the answer goes to *response if there is one.
  template <typename Request, typename Response>
  absl::Status Call(grpc::Status (v1::FineTuningService::Stub::*method)(grpc::ClientContext*,
                                                                        const Request&, Response*),
                    const Request& request, Response* response = nullptr) {
    Response ignored;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    return FromGrpcStatus(
        (stub_.get()->*method)(&context, request, response != nullptr ? response : &ignored));
  }

  // Stores a job with `events` log events after its first change of state.
  void MakeJob(const std::string& id, int events = 0) {
    v1::Job job;
    job.set_job_id(id);
    job.set_request_id("request-" + id);
    job.set_state(v1::VALIDATING);
    job.mutable_create_time()->set_seconds(1000);
    ASSERT_TRUE(store_->WriteSync([&](StoreWriter& writer) { return writer.InsertJob(job); }).ok());
    SetState(id, v1::VALIDATING);
    for (int i = 0; i < events; ++i) Append(id, absl::StrCat("line ", i));
  }
  void Append(const std::string& id, const std::string& text) {
    v1::JobEvent event;
    event.mutable_log()->set_text(text);
    Append(id, event);
  }
  void Append(const std::string& id, const v1::JobEvent& event) {
    const absl::Status status = store_->WriteSync(
        [&](StoreWriter& writer) { return writer.AppendEvent(id, event).status(); });
    ASSERT_TRUE(status.ok()) << status;
  }
  void WriteArtifact(const std::string& id, const std::string& path, const std::string& bytes) {
    const std::string full = dir_ / ("jobs/" + id + "/artifacts/" + path);
    ASSERT_TRUE(MakeDirectories(full.substr(0, full.rfind('/'))).ok());
    ASSERT_TRUE(WriteFileAtomic(full, bytes).ok());
  }
  // State and event in one transaction, as the supervisor does it.
  void SetState(const std::string& id, v1::JobState to) {
    const absl::Status status = store_->WriteSync([&](StoreWriter& writer) -> absl::Status {
      auto job = writer.GetJob(id);
      if (!job.ok()) return job.status();
      v1::JobEvent event;
      event.mutable_state()->set_from(job->state());
      event.mutable_state()->set_to(to);
      job->set_state(to);
      if (absl::Status status = writer.UpdateJob(*job); !status.ok()) return status;
      return writer.AppendEvent(id, event).status();
    });
    ASSERT_TRUE(status.ok()) << status;
  }
  void Succeed(const std::string& id) {
    for (v1::JobState state : {v1::QUEUED, v1::STARTING, v1::RUNNING, v1::SUCCEEDED})
      SetState(id, state);
  }

  TempDir dir_;
  Metrics metrics_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<EventHub> hub_;
  std::unique_ptr<FakeVerbs> verbs_;
  std::unique_ptr<UploadStore> uploads_;
  std::unique_ptr<ArtifactFiles> files_;
  std::unique_ptr<WorkPool> pool_;
  std::string socket_;
  std::unique_ptr<GrpcServer> server_;
  std::unique_ptr<v1::FineTuningService::Stub> stub_;
};

}  // namespace finetuned
