// Every verb over a real connection: that it is reached, and that its errors carry details.
#include <grpcpp/generic/generic_stub.h>
#include <sys/wait.h>

#include <cmath>
#include <fstream>
#include <future>
#include <random>

#include "server/api/request_checks.h"
#include "tests/server/api/api_fixture.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;
using Stub = v1::FineTuningService::Stub;

template <typename Request>
Request ForJob(const std::string& job_id) {
  Request request;
  request.set_job_id(job_id);
  return request;
}

TEST_F(ApiTest, EveryVerbOnJobsReachesTheController) {
  v1::Job job;
  ASSERT_TRUE(Call(&Stub::CancelJob, ForJob<v1::CancelJobRequest>("a"), &job).ok());
  EXPECT_EQ(job.job_id(), "a");
  EXPECT_TRUE(Call(&Stub::PauseJob, ForJob<v1::PauseJobRequest>("a")).ok());
  EXPECT_TRUE(Call(&Stub::ResumeJob, ForJob<v1::ResumeJobRequest>("a")).ok());
  EXPECT_TRUE(Call(&Stub::RerunJob, ForJob<v1::RerunJobRequest>("a")).ok());
  EXPECT_TRUE(Call(&Stub::DeleteJob, ForJob<v1::DeleteJobRequest>("a")).ok());
  auto update = ForJob<v1::UpdateJobRequest>("a");
  update.set_priority(5);
  EXPECT_TRUE(Call(&Stub::UpdateJob, update).ok());
  for (const char* verb : {"Cancel", "Pause", "Resume", "Rerun", "Delete", "Update"})
    EXPECT_TRUE(verbs_->WasCalled(verb)) << verb;

  v1::ValidateJobRequest validate;
  validate.mutable_spec()->set_model_name_or_path("m");
  v1::ValidateJobResponse validated;
  ASSERT_TRUE(Call(&Stub::ValidateJob, validate, &validated).ok());
  EXPECT_EQ(validated.problems(0).field(), "lora.r");
  v1::EstimateJobRequest estimate;
  estimate.mutable_spec();
  EXPECT_TRUE(Call(&Stub::EstimateJob, estimate).ok());
  v1::InspectModelRequest inspect;
  inspect.set_model("m");
  EXPECT_TRUE(Call(&Stub::InspectModel, inspect).ok());
  v1::PreviewDatasetRequest preview;
  preview.mutable_spec();
  EXPECT_TRUE(Call(&Stub::PreviewDataset, preview).ok());
  EXPECT_EQ(verbs_->preview_samples, 3);
  v1::GetQueueResponse queue;
  ASSERT_TRUE(Call(&Stub::GetQueue, v1::GetQueueRequest(), &queue).ok());
  EXPECT_EQ(queue.entries(0).job_id(), "queued");
  v1::ListDevicesResponse devices;
  ASSERT_TRUE(Call(&Stub::ListDevices, v1::ListDevicesRequest(), &devices).ok());
  EXPECT_EQ(devices.devices(0).id(), "cpu");
}

TEST_F(ApiTest, CreatedJobsAreReadBackAndListed) {
  v1::CreateJobRequest request;
  request.mutable_spec()->set_model_name_or_path("m");
  request.set_request_id("one");
  v1::Job job;
  ASSERT_TRUE(Call(&Stub::CreateJob, request, &job).ok());
  EXPECT_EQ(job.owner(), "anonymous");
  ASSERT_TRUE(Call(&Stub::GetJob, ForJob<v1::GetJobRequest>(job.job_id()), &job).ok());
  EXPECT_EQ(job.submitted_spec().model_name_or_path(), "m");
  request.set_request_id("two");
  for (auto [method, kind] : {std::pair(&Stub::Export, "export"), std::pair(&Stub::Merge, "merge"),
                              std::pair(&Stub::Generate, "generate")}) {
    request.set_request_id(kind);
    request.mutable_spec()->clear_kind();
    ASSERT_TRUE(Call(method, request, &job).ok());
    EXPECT_EQ(job.submitted_spec().kind(), kind);
    request.mutable_spec()->set_kind("finetune");
    const absl::Status status = Call(method, request);
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ProblemsOf(status)[0].field(), "spec.kind");
  }
  v1::ListJobsRequest list;
  list.set_page_size(3);
  v1::ListJobsResponse page;
  ASSERT_TRUE(Call(&Stub::ListJobs, list, &page).ok());
  EXPECT_EQ(page.jobs_size(), 3);
  list.set_page_token(page.next_page_token());
  ASSERT_TRUE(Call(&Stub::ListJobs, list, &page).ok());
  EXPECT_EQ(page.jobs_size(), 1);
  EXPECT_EQ(page.next_page_token(), "");
}

// A page of jobs that would exceed what clients accept is cut, and the token goes on from there.
TEST_F(ApiTest, PagesOfLargeJobsStayBelowTheClientsLimit) {
  for (int i = 0; i < 12; ++i) {
    v1::Job job;
    job.set_job_id(absl::StrCat("big", i));
    job.set_request_id(job.job_id());
    job.set_state(v1::VALIDATING);
    job.mutable_create_time()->set_seconds(i);
    for (int j = 0; j < 10; ++j)
      job.mutable_submitted_spec()->mutable_source()->add_prompts(std::string(60000, 'x'));
    ASSERT_TRUE(store_->WriteSync([&](StoreWriter& writer) { return writer.InsertJob(job); }).ok());
  }
  v1::ListJobsRequest list;
  list.set_page_size(1000);
  int seen = 0, pages = 0;
  do {
    v1::ListJobsResponse page;
    const absl::Status status = Call(&Stub::ListJobs, list, &page);
    ASSERT_TRUE(status.ok()) << status;
    seen += page.jobs_size();
    list.set_page_token(page.next_page_token());
    ASSERT_LT(++pages, 20);
  } while (!list.page_token().empty());
  EXPECT_EQ(seen, 12);
  EXPECT_GT(pages, 1);
}

TEST_F(ApiTest, HistoryComesFromTheLog) {
  MakeJob("a");
  v1::JobEvent event;
  for (int step = 1; step <= 100; ++step) {
    event.mutable_metrics()->set_step(step);
    event.mutable_metrics()->set_loss(step);
    Append("a", event);
  }
  // A resumed run repeats its last steps; they count once.
  event.mutable_metrics()->set_step(100);
  Append("a", event);
  event.mutable_evaluation()->set_model("tuned");
  event.mutable_evaluation()->set_step(50);
  event.mutable_evaluation()->mutable_response()->set_loss(1.5);
  Append("a", event);
  event.mutable_checkpoint()->set_step(50);
  event.mutable_checkpoint()->set_is_best(true);
  Append("a", event);
  event.mutable_checkpoint()->set_step(100);
  Append("a", event);
  event.mutable_artifact()->set_path("adapter/adapter_config.json");
  Append("a", event);

  auto metrics = ForJob<v1::ListMetricsRequest>("a");
  metrics.add_names("loss");
  metrics.set_max_points(10);
  v1::ListMetricsResponse series;
  ASSERT_TRUE(Call(&Stub::ListMetrics, metrics, &series).ok());
  ASSERT_EQ(series.series_size(), 1);
  ASSERT_EQ(series.series(0).points_size(), 10);
  EXPECT_EQ(series.series(0).points(1).step(), 11);
  EXPECT_EQ(series.series(0).points(1).min(), 11);
  EXPECT_EQ(series.series(0).points(1).mean(), 15.5);
  EXPECT_EQ(series.series(0).points(1).max(), 20);

  v1::ListCheckpointsResponse checkpoints;
  ASSERT_TRUE(
      Call(&Stub::ListCheckpoints, ForJob<v1::ListCheckpointsRequest>("a"), &checkpoints).ok());
  ASSERT_EQ(checkpoints.checkpoints_size(), 2);
  EXPECT_FALSE(checkpoints.checkpoints(0).is_best());
  EXPECT_TRUE(checkpoints.checkpoints(1).is_best());
  v1::ListEvaluationsResponse evaluations;
  ASSERT_TRUE(
      Call(&Stub::ListEvaluations, ForJob<v1::ListEvaluationsRequest>("a"), &evaluations).ok());
  EXPECT_EQ(evaluations.evaluations_size(), 1);
  v1::ListArtifactsResponse artifacts;
  ASSERT_TRUE(Call(&Stub::ListArtifacts, ForJob<v1::ListArtifactsRequest>("a"), &artifacts).ok());
  ASSERT_EQ(artifacts.artifacts_size(), 1);
  EXPECT_EQ(artifacts.artifacts(0).path(), "adapter/adapter_config.json");

  auto events = ForJob<v1::ListEventsRequest>("a");
  events.set_page_size(60);
  int64_t expected = 1;
  do {
    v1::ListEventsResponse page;
    ASSERT_TRUE(Call(&Stub::ListEvents, events, &page).ok());
    for (const v1::JobEvent& listed : page.events()) EXPECT_EQ(listed.seq(), expected++);
    events.set_after_seq(page.next_after_seq());
  } while (events.after_seq() != 0);
  EXPECT_EQ(expected, 107);
}

TEST_F(ApiTest, ServerInfoAndModels) {
  ASSERT_TRUE(MakeDirectories(dir_ / "models/smol").ok());
  ASSERT_TRUE(MakeDirectories(dir_ / "models/models--org--name/snapshots/abc").ok());
  std::ofstream(dir_ / "models/smol/config.json") << "{}";
  std::ofstream(dir_ / "models/models--org--name/snapshots/abc/config.json") << "{}";
  v1::ServerInfo info;
  ASSERT_TRUE(Call(&Stub::GetServerInfo, v1::GetServerInfoRequest(), &info).ok());
  EXPECT_EQ(info.version(), "1.2.3");
  EXPECT_EQ(info.devices_size(), 1);
  EXPECT_GT(info.free_disk_bytes(), 0u);
  EXPECT_EQ(info.max_message_bytes(), static_cast<uint64_t>(kMaxMessageBytes));
  v1::ListModelsResponse models;
  ASSERT_TRUE(Call(&Stub::ListModels, v1::ListModelsRequest(), &models).ok());
  ASSERT_EQ(models.models_size(), 2);
  EXPECT_EQ(models.models(0).name(), "org/name");
  EXPECT_EQ(models.models(1).name(), "smol");
}

TEST_F(ApiTest, VerbsThatAreNotBuiltSayWhatIsMissingAndWhatToUse) {
  v1::CreateJobRequest create;
  create.mutable_spec();
  std::vector<absl::Status> answers = {
      Call(&Stub::Evaluate, create),
      Call(&Stub::Prepare, create),
      Call(&Stub::DiagnoseJob, ForJob<v1::DiagnoseJobRequest>("a")),
      Call(&Stub::CompareJobs, v1::CompareJobsRequest()),
      Call(&Stub::ProfileJob, ForJob<v1::ProfileJobRequest>("a")),
      Call(&Stub::DrainDevice, v1::DrainDeviceRequest()),
      Call(&Stub::UndrainDevice, v1::UndrainDeviceRequest()),
  };
  for (const char* flag : {"minimal", "reset_optimizer", "salvage"}) {
    auto rerun = ForJob<v1::RerunJobRequest>("a");
    rerun.GetReflection()->SetBool(&rerun, rerun.GetDescriptor()->FindFieldByName(flag), true);
    answers.push_back(Call(&Stub::RerunJob, rerun));
  }
  for (const absl::Status& status : answers) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("is not built yet: "));
    EXPECT_EQ(ReasonOf(status), "NOT_BUILT");
    EXPECT_EQ(HelpOf(status).size(), 1u);
  }
  EXPECT_FALSE(verbs_->WasCalled("Create"));
  EXPECT_FALSE(verbs_->WasCalled("Rerun"));
}

TEST_F(ApiTest, ErrorsOnJobsHaveStableReasons) {
  for (const absl::Status& status :
       {Call(&Stub::GetJob, ForJob<v1::GetJobRequest>("missing")),
        Call(&Stub::CancelJob, ForJob<v1::CancelJobRequest>("missing")),
        Call(&Stub::ListEvents, ForJob<v1::ListEventsRequest>("missing")),
        Call(&Stub::ListMetrics, ForJob<v1::ListMetricsRequest>("missing")),
        Call(&Stub::ListCheckpoints, ForJob<v1::ListCheckpointsRequest>("missing")),
        Call(&Stub::ListArtifacts, ForJob<v1::ListArtifactsRequest>("missing"))}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("missing"));
    EXPECT_EQ(ReasonOf(status), "JOB_NOT_FOUND");
  }
  const absl::Status wrong = Call(&Stub::PauseJob, ForJob<v1::PauseJobRequest>("final"));
  EXPECT_EQ(wrong.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(wrong), "WRONG_STATE");
}

// Hostile and merely wrong requests: refused with the field, without reaching anything behind the
// API.
TEST_F(ApiTest, RequestsOfTheWrongShapeNameTheField) {
  auto expect = [](const absl::Status& status, const std::string& field) {
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field << ": " << status;
    ASSERT_FALSE(ProblemsOf(status).empty()) << field;
    EXPECT_EQ(ProblemsOf(status)[0].field(), field);
    EXPECT_THAT(ProblemsOf(status)[0].message(), HasSubstr("allowed: "));
    EXPECT_EQ(ReasonOf(status), "INVALID_REQUEST");
  };
  for (const char* id : {"", "../../etc", "a b", "a/b"})
    expect(Call(&Stub::GetJob, ForJob<v1::GetJobRequest>(id)), "job_id");
  expect(Call(&Stub::GetJob, ForJob<v1::GetJobRequest>(std::string(65, 'a'))), "job_id");
  expect(Call(&Stub::CreateJob, v1::CreateJobRequest()), "spec");

  v1::CreateJobRequest good;
  good.mutable_spec()->set_model_name_or_path("m");
  auto create = [&](auto change) {
    v1::CreateJobRequest request = good;
    change(request);
    return Call(&Stub::CreateJob, request);
  };
  expect(create([](auto& r) { r.set_priority(1001); }), "priority");
  expect(create([](auto& r) { r.set_request_id("two words"); }), "request_id");
  expect(create([](auto& r) { r.set_request_id(std::string(129, 'a')); }), "request_id");
  expect(create([](auto& r) { (*r.mutable_labels())["a b"] = "c"; }), "labels");
  expect(create([](auto& r) { (*r.mutable_labels())["team"] = std::string(256, 'a'); }),
         "labels.team");
  expect(create([](auto& r) {
           for (int i = 0; i < 65; ++i) (*r.mutable_labels())[absl::StrCat(i)] = "";
         }),
         "labels");
  expect(create([](auto& r) { (*r.mutable_metadata())["a"] = std::string(17000, 'a'); }),
         "metadata");
  expect(create([](auto& r) { r.add_after("../x"); }), "after[0]");
  expect(create([](auto& r) {
           for (int i = 0; i < 1001; ++i) r.add_after("a");
         }),
         "after");
  expect(create([](auto& r) { r.mutable_spec()->set_run_name(std::string(70000, 'a')); }),
         "spec.run_name");
  expect(create([](auto& r) { r.mutable_spec()->set_run_name(std::string("a\0b", 3)); }),
         "spec.run_name");
  expect(create([](auto& r) { r.mutable_spec()->set_learning_rate(NAN); }), "spec.learning_rate");
  expect(create([](auto& r) {
           for (int i = 0; i < 1001; ++i) r.mutable_spec()->mutable_dataset()->add_path("a");
         }),
         "spec.dataset.path");
  EXPECT_FALSE(verbs_->WasCalled("Create"));

  v1::ListJobsRequest list;
  list.set_page_size(1001);
  expect(Call(&Stub::ListJobs, list), "page_size");
  list.set_page_size(-1);
  expect(Call(&Stub::ListJobs, list), "page_size");
  list.set_page_size(1);
  list.add_states(static_cast<v1::JobState>(99));
  expect(Call(&Stub::ListJobs, list), "states[0]");
  auto events = ForJob<v1::ListEventsRequest>("a");
  events.set_page_size(10001);
  expect(Call(&Stub::ListEvents, events), "page_size");
  auto metrics = ForJob<v1::ListMetricsRequest>("a");
  metrics.add_names("lr");
  expect(Call(&Stub::ListMetrics, metrics), "names");
  expect(Call(&Stub::UpdateJob, ForJob<v1::UpdateJobRequest>("a")), "priority");
  auto rerun = ForJob<v1::RerunJobRequest>("a");
  rerun.set_from_checkpoint(-5);
  expect(Call(&Stub::RerunJob, rerun), "from_checkpoint");
  v1::PreviewDatasetRequest preview;
  preview.mutable_spec();
  preview.set_samples(101);
  expect(Call(&Stub::PreviewDataset, preview), "samples");
  v1::QueryUploadRequest query;
  query.set_sha256("ABC");
  expect(Call(&Stub::QueryUpload, query), "sha256");
}

TEST_F(ApiTest, MessagesAboveTheLimitAreRefusedAndTheServerGoesOn) {
  v1::CreateJobRequest request;
  request.mutable_spec()->set_run_name(std::string(8 << 20, 'a'));
  EXPECT_EQ(Call(&Stub::CreateJob, request).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Call(&Stub::GetQueue, v1::GetQueueRequest()).ok());
}

// Random bytes instead of a message: an error or an answer, never a crash or a hang.
TEST_F(ApiTest, RandomBytesNeverBreakTheServer) {
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  MakeJob("a", 3);
  grpc::GenericStub generic(Channel(absl::StrCat("127.0.0.1:", server_->ports()[0])));
  v1::CreateJobRequest good;
  good.mutable_spec()->set_model_name_or_path("m");
  good.mutable_spec()->mutable_dataset()->add_path("d.jsonl");
  (*good.mutable_labels())["a"] = "b";
  std::vector<std::string> methods;
  const auto* service = v1::CreateJobRequest::descriptor()->file()->service(0);
  for (int i = 0; i < service->method_count(); ++i) methods.push_back(service->method(i)->name());
  int refused = 0;
  for (int i = 0; i < 600; ++i) {
    std::string bytes = good.SerializeAsString();
    for (int j = 0; j < 3; ++j) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    const grpc::Slice slice(bytes);
    grpc::ByteBuffer request(&slice, 1), response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    const std::string& method = methods[random() % methods.size()];
    std::promise<grpc::Status> promise;
    generic.UnaryCall(&context, "/finetuned.v1.FineTuningService/" + method, grpc::StubOptions(),
                      &request, &response, [&](grpc::Status status) { promise.set_value(status); });
    const grpc::Status status = promise.get_future().get();
    EXPECT_NE(status.error_code(), grpc::DEADLINE_EXCEEDED) << method;
    refused += !status.ok();
  }
  EXPECT_GT(refused, 100);
  EXPECT_TRUE(Call(&Stub::GetQueue, v1::GetQueueRequest()).ok());
}

TEST_F(ApiTest, TheUnixSocketServesToo) {
  stub_ = v1::FineTuningService::NewStub(Channel(socket_));
  EXPECT_TRUE(Call(&Stub::GetQueue, v1::GetQueueRequest()).ok());
}

TEST_F(ApiTest, AddressesInUseAreRefusedWithTheCure) {
  ServiceParts parts;
  const std::string address = absl::StrCat("127.0.0.1:", server_->ports()[0]);
  auto second = GrpcServer::Start({address}, parts, nullptr);
  ASSERT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address));
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--listen"));
  second = GrpcServer::Start({socket_}, parts, nullptr);
  ASSERT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another server listens"));
  std::ofstream(dir_ / "file") << "not a socket";
  EXPECT_EQ(GrpcServer::Start({"unix:" + (dir_ / "file")}, parts, nullptr).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(ApiTest, CallsAreCountedAndPromtoolReadsThem) {
  EXPECT_TRUE(Call(&Stub::GetQueue, v1::GetQueueRequest()).ok());
  EXPECT_FALSE(Call(&Stub::GetJob, ForJob<v1::GetJobRequest>("missing")).ok());
  std::string text = metrics_.Text();
  EXPECT_THAT(text, HasSubstr("finetuned_grpc_requests_total{code=\"OK\",method=\"GetQueue\"} 1"));
  EXPECT_THAT(text,
              HasSubstr("finetuned_grpc_requests_total{code=\"NOT_FOUND\",method=\"GetJob\"} 1"));
  EXPECT_THAT(text, HasSubstr("finetuned_grpc_request_seconds_count{method=\"GetJob\"} 1"));
  // Through the exporter's port, as Prometheus gets it.
  ASSERT_TRUE(metrics_.Serve("127.0.0.1:0").ok());
  const std::string command =
      absl::StrCat("set -o pipefail; curl -fsS http://127.0.0.1:", metrics_.port(),
                   "/metrics | promtool check metrics");
  const int status = std::system(("bash -c '" + command + "'").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 0) << command;
  metrics_.StopServing();
}

TEST_F(ApiTest, AStoppingServerRefusesNewCalls) {
  server_->StopAccepting();
  const absl::Status status = Call(&Stub::GetQueue, v1::GetQueueRequest());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), "SERVER_STOPPING");
}

}  // namespace
}  // namespace finetuned
