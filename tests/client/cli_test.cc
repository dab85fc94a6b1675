// The finetune program itself against a fake service: exit codes, reconnecting, transfers,
// completion.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <mutex>
#include <thread>

#include "finetuned/v1/service.grpc.pb.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/errors/rpc_errors.h"

extern char** environ;

namespace finetuned {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Binary() { return std::string(getenv("FINETUNED_BIN_DIR")) + "/finetune"; }

struct Finished {
  int code = -1;
  std::string out, err;
};

// A child process with its outputs in files; `interrupt_when` sends SIGINT once standard output
// holds it.
Finished RunProgram(std::vector<std::string> args, const std::string& server,
                    const std::string& interrupt_when = "", const std::string& directory = "") {
  static int counter = 0;
  const std::string base = ::testing::TempDir() + "/finetune-" + std::to_string(getpid()) + "-" +
                           std::to_string(counter++);
  setenv("FINETUNED_SERVER", server.c_str(), 1);
  setenv("XDG_CONFIG_HOME", "/nonexistent", 1);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, (base + ".out").c_str(),
                                   O_CREAT | O_WRONLY | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, (base + ".err").c_str(),
                                   O_CREAT | O_WRONLY | O_TRUNC, 0600);
  if (!directory.empty()) posix_spawn_file_actions_addchdir_np(&actions, directory.c_str());
  std::vector<char*> argv;
  std::string binary = args[0].find('/') == std::string::npos ? Binary() : args[0];
  if (args[0].find('/') == std::string::npos) args.insert(args.begin(), binary);
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  EXPECT_EQ(posix_spawn(&pid, binary.c_str(), &actions, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  if (!interrupt_when.empty()) {
    for (int i = 0;
         i < 300 && ReadFile(base + ".out").value_or("").find(interrupt_when) == std::string::npos;
         ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    kill(pid, SIGINT);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  Finished finished;
  finished.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  finished.out = ReadFile(base + ".out").value_or("");
  finished.err = ReadFile(base + ".err").value_or("");
  return finished;
}

v1::JobEvent Event(int64_t seq) {
  v1::JobEvent event;
  event.set_seq(seq);
  event.mutable_time()->set_seconds(1700000000 + seq);
  event.mutable_log()->set_text("event number " + std::to_string(seq));
  return event;
}

class FakeService : public v1::FineTuningService::Service {
 public:
  std::mutex mutex;
  v1::Job job;                       // what GetJob answers
  std::vector<v1::JobEvent> events;  // the log of the one job
  size_t break_watch_after = 0;      // this many events, then UNAVAILABLE, once
  bool hang_watch = false;           // after the last event, until cancelled
  grpc::Status create_status;
  v1::CreateJobRequest created;
  std::vector<int64_t> watched_after;
  std::string stored_upload, artifact_bytes = "artifact bytes, twenty-nine..";
  std::string artifact_path = "adapter/adapter_model.safetensors", artifact_sha256;
  size_t break_download_after = 0;
  std::vector<uint64_t> download_offsets, upload_offsets;
  size_t break_upload_after = 0;

  grpc::Status CreateJob(grpc::ServerContext*, const v1::CreateJobRequest* request,
                         v1::Job* response) override {
    std::lock_guard<std::mutex> lock(mutex);
    created = *request;
    if (!create_status.ok()) return create_status;
    *response = job;
    response->set_state(v1::VALIDATING);
    return grpc::Status::OK;
  }
  grpc::Status ValidateJob(grpc::ServerContext*, const v1::ValidateJobRequest* request,
                           v1::ValidateJobResponse* response) override {
    v1::Problem* problem = response->add_problems();
    problem->set_severity(v1::Problem::ERROR);
    problem->set_field("learning_rate");
    problem->set_message("5 is too large");
    problem->set_allowed("did you mean 5e-5?");
    return grpc::Status::OK;
  }
  grpc::Status GetJob(grpc::ServerContext*, const v1::GetJobRequest* request,
                      v1::Job* response) override {
    std::lock_guard<std::mutex> lock(mutex);
    if (request->job_id() != job.job_id()) {
      return ToGrpcStatus(WithHelp(absl::NotFoundError("there is no job " + request->job_id()),
                                   "see all jobs", "finetune list"));
    }
    *response = job;
    return grpc::Status::OK;
  }
  grpc::Status CancelJob(grpc::ServerContext*, const v1::CancelJobRequest*, v1::Job*) override {
    return grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "only the owner cancels a job");
  }
  grpc::Status WatchJob(grpc::ServerContext* context, const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    size_t stop_after = SIZE_MAX;
    std::vector<v1::JobEvent> log;
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (request->job_id() != job.job_id())
        return grpc::Status(grpc::StatusCode::NOT_FOUND, "there is no such job");
      watched_after.push_back(request->after_seq());
      log = events;
      if (break_watch_after > 0) stop_after = std::exchange(break_watch_after, 0);
    }
    for (const v1::JobEvent& event : log) {
      if (event.seq() <= request->after_seq()) continue;
      if (stop_after-- == 0) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server stops");
      writer->Write(event);
    }
    while (hang_watch && !context->IsCancelled())
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return grpc::Status::OK;
  }
  grpc::Status ListArtifacts(grpc::ServerContext*, const v1::ListArtifactsRequest*,
                             v1::ListArtifactsResponse* response) override {
    v1::Artifact* artifact = response->add_artifacts();
    artifact->set_path(artifact_path);
    artifact->set_kind("adapter");
    artifact->set_size_bytes(artifact_bytes.size());
    artifact->set_sha256(artifact_sha256.empty() ? Sha256Hex(artifact_bytes) : artifact_sha256);
    artifact = response->add_artifacts();
    artifact->set_path("failure/log.txt");
    artifact->set_kind("failure");
    return grpc::Status::OK;
  }
  grpc::Status DownloadArtifact(grpc::ServerContext*, const v1::DownloadArtifactRequest* request,
                                grpc::ServerWriter<v1::DownloadArtifactResponse>* writer) override {
    std::lock_guard<std::mutex> lock(mutex);
    download_offsets.push_back(request->offset());
    size_t left = break_download_after > 0 ? std::exchange(break_download_after, 0) : SIZE_MAX;
    for (size_t at = request->offset(); at < artifact_bytes.size(); at += 4) {
      if (left-- == 0) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server stops");
      v1::DownloadArtifactResponse response;
      response.set_chunk(artifact_bytes.substr(at, 4));
      writer->Write(response);
    }
    return grpc::Status::OK;
  }
  grpc::Status QueryUpload(grpc::ServerContext*, const v1::QueryUploadRequest* request,
                           v1::QueryUploadResponse* response) override {
    std::lock_guard<std::mutex> lock(mutex);
    response->set_received_bytes(stored_upload.size());
    response->set_complete(Sha256Hex(stored_upload) == request->sha256());
    return grpc::Status::OK;
  }
  grpc::Status UploadFile(grpc::ServerContext*, grpc::ServerReader<v1::UploadFileRequest>* reader,
                          v1::UploadFileResponse* response) override {
    std::lock_guard<std::mutex> lock(mutex);
    v1::UploadFileRequest request;
    size_t chunks = 0;
    while (reader->Read(&request)) {
      if (request.has_header()) {
        upload_offsets.push_back(request.header().offset());
        continue;
      }
      stored_upload += request.chunk();
      if (break_upload_after > 0 && ++chunks == break_upload_after) {
        break_upload_after = 0;
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server stops");
      }
    }
    return grpc::Status::OK;
  }
};

class CliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = ::testing::TempDir() + "/finetune-cli-" + std::to_string(getpid());
    std::filesystem::remove_all(directory_);
    std::filesystem::create_directories(directory_);
    fake_.job.set_job_id("job-1");
    fake_.job.set_state(v1::SUCCEEDED);
    ASSERT_TRUE(WriteFileAtomic(directory_ + "/job.yaml",
                                "model_name_or_path: smol\ndataset:\n  path: data.jsonl\n")
                    .ok());
    Start();
  }
  void TearDown() override {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    std::filesystem::remove_all(directory_);
  }
  void Start() {
    grpc::ServerBuilder builder;
    address_ = "unix:" + directory_ + "/socket";
    builder.AddListeningPort(address_, grpc::InsecureServerCredentials());
    builder.RegisterService(&fake_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  Finished Finetune(std::vector<std::string> args) {
    return RunProgram(std::move(args), address_, "", directory_);
  }
  void Log(int count) {
    for (int i = 1; i < count; ++i) fake_.events.push_back(Event(i));
    v1::JobEvent last = Event(count);
    last.mutable_state()->set_to(fake_.job.state());
    fake_.events.push_back(last);
    fake_.job.set_last_seq(count);
  }

  FakeService fake_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_, directory_;
};

TEST_F(CliTest, HelpOfEveryCommandIsFastAndNeedsNoServer) {
  const auto start = std::chrono::steady_clock::now();
  const Finished help = RunProgram({"--help"}, "unix:/nonexistent");
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  std::printf("finetune --help: %.1f ms\n", ms);
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("submit"));
  EXPECT_THAT(RunProgram({"submit", "--help"}, "unix:/nonexistent").out,
              HasSubstr("Examples:\n  finetune submit job.yaml --watch"));
}

TEST_F(CliTest, UsageErrorsExit2) {
  EXPECT_EQ(Finetune({"sumbit", "x"}).code, 2);
  EXPECT_THAT(Finetune({"sumbit", "x"}).err, HasSubstr("did you mean `finetune submit`?"));
  EXPECT_EQ(Finetune({"get"}).code, 2);
  EXPECT_EQ(Finetune({"list", "--output", "xml"}).code, 2);
  EXPECT_EQ(Finetune({"submit"}).code, 2);
  EXPECT_EQ(Finetune({"submit", "missing.yaml"}).code, 2);
  const Finished wrong = Finetune({"submit", "job.yaml", "--set", "lora.rr=8"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("did you mean lora.r?"));
  ASSERT_TRUE(WriteFileAtomic(directory_ + "/bad.yaml",
                              "model_name_or_path: smol\nlearning_rte: 1\nseed: x\n")
                  .ok());
  const Finished bad = Finetune({"submit", "bad.yaml"});
  EXPECT_EQ(bad.code, 2);
  EXPECT_THAT(bad.err, HasSubstr("bad.yaml:2: learning_rte: is not a key of a job"));
  EXPECT_THAT(bad.err, HasSubstr("bad.yaml:3: seed:"));
}

TEST_F(CliTest, AServerThatIsNotThereExits3AndSaysHowToStartIt) {
  const auto start = std::chrono::steady_clock::now();
  const Finished finished = RunProgram({"list"}, "127.0.0.1:1");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(8));
  EXPECT_EQ(finished.code, 3);
  EXPECT_THAT(finished.err,
              HasSubstr("cannot reach the server at 127.0.0.1:1 (from FINETUNED_SERVER)"));
  EXPECT_THAT(finished.err, HasSubstr("start it with: finetuned"));
}

TEST_F(CliTest, NotPermittedExits4AndAnUnknownJob1) {
  EXPECT_EQ(Finetune({"cancel", "job-1"}).code, 4);
  const Finished unknown = Finetune({"get", "job-9"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("there is no job job-9"));
  EXPECT_THAT(unknown.err, HasSubstr("finetune list"));
  EXPECT_EQ(Finetune({"watch", "job-9"}).code, 1);
}

TEST_F(CliTest, SubmitPipedPrintsTheIdAlone) {
  fake_.job.set_state(v1::QUEUED);
  v1::JobEvent queued = Event(1);
  queued.mutable_state()->set_to(v1::QUEUED);
  fake_.events = {queued};
  ASSERT_TRUE(WriteFileAtomic(directory_ + "/data.jsonl", "{}\n").ok());
  const Finished finished = Finetune(
      {"submit", "job.yaml", "--set", "r=8", "--label", "team=a", "--priority", "3", "--hold"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_EQ(finished.out, "job-1\n");
  EXPECT_EQ(fake_.created.spec().lora().r().value(), 8);
  EXPECT_EQ(fake_.created.labels().at("team"), "a");
  EXPECT_EQ(fake_.created.priority(), 3);
  EXPECT_TRUE(fake_.created.held());
  EXPECT_EQ(fake_.created.request_id().size(), 36u);
  // A path that exists here is sent as an absolute one; a name that does not is left to the
  // server's roots.
  EXPECT_THAT(fake_.created.spec().dataset().path(0), ::testing::EndsWith("/data.jsonl"));
  EXPECT_EQ(fake_.created.spec().dataset().path(0)[0], '/');
  EXPECT_EQ(fake_.created.spec().model_name_or_path(), "smol");
}

TEST_F(CliTest, ASpecTheServerRefusesPointsIntoTheFile) {
  v1::Problem problem;
  problem.set_severity(v1::Problem::ERROR);
  problem.set_field("dataset.path");
  problem.set_message("data.jsonl is outside the data roots");
  problem.set_allowed("a file under /data");
  fake_.create_status = ToGrpcStatus(InvalidSpec({problem}));
  const Finished finished = Finetune({"submit", "job.yaml"});
  EXPECT_EQ(finished.code, 2);
  EXPECT_THAT(finished.err,
              HasSubstr("job.yaml:3: dataset.path: data.jsonl is outside the data roots"));
  EXPECT_THAT(finished.err, HasSubstr("allowed: a file under /data"));
  EXPECT_EQ(Finetune({"validate", "job.yaml"}).code, 2);
}

TEST_F(CliTest, AJobThatFailsWhileItIsCheckedExits1WithTheCure) {
  fake_.job.set_state(v1::FAILED);
  v1::Failure* failure = fake_.job.mutable_failure();
  failure->set_reason(v1::MODEL_NOT_FOUND);
  failure->set_message("smol is not under /models");
  failure->set_field("model_name_or_path");
  failure->add_suggestions("model_name_or_path=SmolLM2");
  Log(2);
  const Finished finished = Finetune({"submit", "job.yaml"});
  EXPECT_EQ(finished.code, 1);
  EXPECT_THAT(finished.err, HasSubstr("MODEL_NOT_FOUND"));
  EXPECT_THAT(finished.err, HasSubstr("key: model_name_or_path"));
  EXPECT_THAT(finished.err,
              HasSubstr("try: finetune rerun job-1 --set model_name_or_path=SmolLM2"));
  EXPECT_EQ(Finetune({"watch", "job-1"}).code, 1);
}

TEST_F(CliTest, WatchEndsWithTheComparison) {
  Log(3);
  v1::JobResult* result = fake_.job.mutable_result();
  result->mutable_base()->mutable_response()->set_loss(3.2);
  result->mutable_base()->mutable_response()->set_tokens(10);
  result->mutable_tuned()->mutable_response()->set_loss(1.6);
  result->mutable_tuned()->mutable_response()->set_tokens(10);
  result->set_verdict("improved, ready to deploy");
  v1::GenerationSample* sample = result->add_samples();
  sample->set_prompt("What is a queue?");
  sample->set_base("\x1b[2Jqueue");
  sample->set_tuned("A line of waiting people.");
  const Finished finished = Finetune({"watch", "job-1"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_THAT(finished.out, HasSubstr("loss, response"));
  EXPECT_THAT(finished.out, HasSubstr("-50.0 %"));
  EXPECT_THAT(finished.out, HasSubstr("A line of waiting people."));
  EXPECT_THAT(finished.out, HasSubstr("verdict: improved, ready to deploy"));
  EXPECT_THAT(finished.out,
              Not(HasSubstr("\x1b")));  // piped: no colour, and no escape of a model's making
}

TEST_F(CliTest, WatchGoesOnAfterALostConnectionWithoutGapOrRepeat) {
  Log(10);
  fake_.break_watch_after = 4;
  const Finished finished = Finetune({"watch", "job-1"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_EQ(fake_.watched_after, (std::vector<int64_t>{0, 4}));
  EXPECT_THAT(finished.err, HasSubstr("lost; the job goes on"));
  EXPECT_THAT(finished.err, HasSubstr("going on after event 4"));
  size_t at = 0;
  for (int i = 1; i < 10; ++i) {
    const std::string line = "event number " + std::to_string(i) + "\n";
    const size_t found = finished.out.find(line);
    ASSERT_NE(found, std::string::npos) << i;
    EXPECT_EQ(finished.out.find(line, found + 1), std::string::npos) << i;
    EXPECT_GE(found, at);
    at = found;
  }
}

TEST_F(CliTest, WatchSurvivesARestartOfTheServer) {
  for (int i = 1; i <= 3; ++i) fake_.events.push_back(Event(i));
  fake_.job.set_state(v1::RUNNING);
  fake_.hang_watch = true;
  std::thread restart([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    {
      std::lock_guard<std::mutex> lock(fake_.mutex);
      fake_.hang_watch = false;
      fake_.job.set_state(v1::SUCCEEDED);
      v1::JobEvent last = Event(4);
      last.mutable_state()->set_to(v1::SUCCEEDED);
      fake_.events.push_back(last);
      fake_.job.set_last_seq(4);
    }
    Start();
  });
  const Finished finished = Finetune({"watch", "job-1"});
  restart.join();
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_EQ(fake_.watched_after.back(), 3);
  EXPECT_THAT(finished.out, HasSubstr("state succeeded"));
}

// The same program with a terminal as its standard output: a live line, colour unless NO_COLOR,
// events above it.
std::string RunOnTerminal(const std::vector<std::string>& arguments, const std::string& server,
                          bool color) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  EXPECT_GE(master, 0);
  EXPECT_EQ(grantpt(master) | unlockpt(master), 0);
  const winsize size = {.ws_row = 40, .ws_col = 120};
  setenv("FINETUNED_SERVER", server.c_str(), 1);
  setenv("TERM", "xterm", 1);
  color ? unsetenv("NO_COLOR") : setenv("NO_COLOR", "1", 1);
  const int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  ioctl(slave, TIOCSWINSZ, &size);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, slave, 1);
  posix_spawn_file_actions_adddup2(&actions, slave, 2);
  std::vector<std::string> args = arguments;
  args.insert(args.begin(), Binary());
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  pid_t pid = 0;
  EXPECT_EQ(posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(slave);
  std::string text;
  char buffer[4096];
  // The read fails with EIO once the child has closed the other end.
  for (ssize_t count; (count = read(master, buffer, sizeof(buffer))) > 0;)
    text.append(buffer, static_cast<size_t>(count));
  close(master);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0) << text;
  return text;
}

TEST_F(CliTest, ATerminalGetsALiveLineWithACurve) {
  Log(12);
  for (int i = 0; i < 8; ++i) {
    v1::TrainingMetrics* metrics = fake_.events[i + 2].mutable_metrics();
    metrics->set_step(i + 1);
    metrics->set_total_steps(8);
    metrics->set_loss(3.0 - 0.2 * i);
    metrics->set_learning_rate(2e-4);
    metrics->set_eta_seconds(8 - i);
  }
  fake_.job.mutable_result()->set_verdict("improved");
  const std::string colored = RunOnTerminal({"watch", "job-1"}, address_, /*color=*/true);
  std::printf("%s\n", colored.c_str());
  EXPECT_THAT(colored, HasSubstr("training  step 8/8  loss 1.6000  lr 2.00e-04"));
  EXPECT_THAT(colored, HasSubstr("█▇▆▅▄▃▂▁"));
  EXPECT_THAT(colored, HasSubstr("\r\x1b[2K"));
  EXPECT_THAT(colored, HasSubstr("\x1b[32mstate succeeded"));
  const std::string plain = RunOnTerminal({"watch", "job-1"}, address_, /*color=*/false);
  EXPECT_THAT(plain, Not(HasSubstr("\x1b[32m")));
  EXPECT_THAT(plain, HasSubstr("state succeeded"));
}

TEST_F(CliTest, AGapInTheLogIsAnError) {
  fake_.events = {Event(1), Event(3)};
  const Finished finished = Finetune({"watch", "job-1"});
  EXPECT_EQ(finished.code, 1);
  EXPECT_THAT(finished.err, HasSubstr("after 1 came 3"));
}

TEST_F(CliTest, InterruptedWatchExits130AndSaysTheJobGoesOn) {
  for (int i = 1; i <= 3; ++i) fake_.events.push_back(Event(i));
  fake_.job.set_state(v1::RUNNING);
  fake_.hang_watch = true;
  const Finished finished = RunProgram({"watch", "job-1"}, address_, "event number 3");
  fake_.hang_watch = false;
  EXPECT_EQ(finished.code, 130);
  EXPECT_THAT(
      finished.err,
      HasSubstr("the job goes on; watch it again with: finetune watch job-1 --after-seq 3"));
}

TEST_F(CliTest, DownloadResumesVerifiesAndSkipsWhatIsThere) {
  fake_.break_download_after = 3;
  const std::string to = directory_ + "/out";
  Finished finished = Finetune({"download", "job-1", "--to", to});
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_EQ(ReadFile(to + "/adapter/adapter_model.safetensors").value(), fake_.artifact_bytes);
  EXPECT_EQ(fake_.download_offsets, (std::vector<uint64_t>{0, 12}));
  EXPECT_FALSE(std::filesystem::exists(to + "/failure"));
  finished = Finetune({"download", "job-1", "--to", to});
  EXPECT_EQ(finished.code, 0);
  EXPECT_EQ(fake_.download_offsets.size(), 2u);
  // A part left by an interrupted program is gone on with; a wrong one is thrown away once.
  std::filesystem::remove(to + "/adapter/adapter_model.safetensors");
  ASSERT_TRUE(WriteFileAtomic(to + "/adapter/adapter_model.safetensors.part",
                              fake_.artifact_bytes.substr(0, 8))
                  .ok());
  EXPECT_EQ(Finetune({"download", "job-1", "--to", to}).code, 0);
  EXPECT_EQ(fake_.download_offsets.back(), 8u);
  std::filesystem::remove(to + "/adapter/adapter_model.safetensors");
  ASSERT_TRUE(WriteFileAtomic(to + "/adapter/adapter_model.safetensors.part", "XXXXXXXX").ok());
  EXPECT_EQ(Finetune({"download", "job-1", "--to", to}).code, 0);
  EXPECT_EQ(ReadFile(to + "/adapter/adapter_model.safetensors").value(), fake_.artifact_bytes);
}

TEST_F(CliTest, DownloadRefusesAWrongHashAndAPathOutside) {
  fake_.artifact_sha256 = std::string(64, '0');
  const Finished wrong = Finetune({"download", "job-1", "--to", directory_ + "/out"});
  EXPECT_EQ(wrong.code, 1);
  EXPECT_THAT(wrong.err, HasSubstr("the server promised 0000"));
  fake_.artifact_path = "../escaped";
  const Finished outside = Finetune({"download", "job-1", "--to", directory_ + "/out"});
  EXPECT_NE(outside.code, 0);
  EXPECT_THAT(outside.err, HasSubstr("would leave"));
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/escaped"));
}

TEST_F(CliTest, UploadResumesAndSkipsWhatTheServerHas) {
  std::string data;
  for (int i = 0; i < 200000; ++i) data += "line " + std::to_string(i) + "\n";
  ASSERT_TRUE(WriteFileAtomic(directory_ + "/data.jsonl", data).ok());
  fake_.break_upload_after = 1;
  Finished finished = Finetune({"upload", "data.jsonl"});
  EXPECT_EQ(finished.code, 0) << finished.err;
  EXPECT_EQ(finished.out, "upload:" + Sha256Hex(data) + "\n");
  EXPECT_EQ(fake_.stored_upload, data);
  EXPECT_EQ(fake_.upload_offsets, (std::vector<uint64_t>{0, 512 << 10}));
  finished = Finetune({"upload", "data.jsonl"});
  EXPECT_THAT(finished.err, HasSubstr("has it already"));
  EXPECT_EQ(fake_.upload_offsets.size(), 2u);
  EXPECT_EQ(Finetune({"upload", "missing.jsonl"}).code, 1);
  EXPECT_NE(Finetune({"upload", directory_}).code, 0);
}

TEST_F(CliTest, SpecOfAJobIsAJobFile) {
  fake_.job.mutable_resolved_spec()->set_model_name_or_path("smol");
  fake_.job.mutable_resolved_spec()->mutable_lora()->mutable_r()->set_value(8);
  EXPECT_EQ(Finetune({"get", "job-1", "--spec"}).out, "model_name_or_path: smol\nlora:\n  r: 8\n");
  EXPECT_THAT(Finetune({"get", "job-1", "--output", "json"}).out,
              HasSubstr("\"job_id\": \"job-1\""));
  EXPECT_THAT(Finetune({"get", "job-1", "--output", "yaml"}).out, HasSubstr("job_id: job-1"));
}

TEST_F(CliTest, CompletionScriptsAreValid) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Finished script = Finetune({"completion", shell});
    EXPECT_EQ(script.code, 0);
    EXPECT_THAT(script.out, HasSubstr("checkpoints"));
    const std::string path = directory_ + "/completion." + shell;
    ASSERT_TRUE(WriteFileAtomic(path, script.out).ok());
    const std::string program = std::string("/usr/bin/") + shell;
    if (access(program.c_str(), X_OK) != 0) {
      std::printf("%s is not installed: its script was generated but not parsed\n", shell);
      continue;
    }
    EXPECT_EQ(RunProgram({program, "-n", path}, address_).code, 0) << shell;
  }
  // bash completes commands, options of a command, and shells.
  ASSERT_TRUE(
      WriteFileAtomic(
          directory_ + "/try.sh",
          "source " + directory_ +
              "/completion.bash\n"
              "COMP_WORDS=(finetune che); COMP_CWORD=1; _finetune; echo \"${COMPREPLY[@]}\"\n"
              "COMP_WORDS=(finetune submit --wa); COMP_CWORD=2; _finetune; echo "
              "\"${COMPREPLY[@]}\"\n"
              "COMP_WORDS=(finetune completion f); COMP_CWORD=2; _finetune; echo "
              "\"${COMPREPLY[@]}\"\n")
          .ok());
  EXPECT_EQ(RunProgram({"/usr/bin/bash", directory_ + "/try.sh"}, address_).out,
            "checkpoints\n--watch\nfish\n");
}

}  // namespace
}  // namespace finetuned
