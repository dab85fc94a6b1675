// A worker without a trainer, for the supervisor's tests: it speaks the protocol, spools,
// checkpoints, obeys commands and misbehaves as the job's run_name says ("steps=40 step_ms=10
// crash_at=17"):
//   steps=N step_ms=N      length of the run; a checkpoint every 5 steps
//   crash_at=N             SIGKILL to itself before step N, once a job
//   crash_always=N         the same in every attempt
//   fail_at=N reason=R     AttemptEnd FAILED with that FailureReason
//   deaf=1                 ignores commands and SIGTERM
//   hang_at=N              stands still at step N, heartbeats go on
//   silent_at=N            stops everything, heartbeats included
//   invalid=1              the query finds an error
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>
#include <vector>

#include "finetuned/v1/worker.grpc.pb.h"
#include "proto/base/file_util.h"
#include "server/supervisor/spool.h"

namespace finetuned {
namespace {

using std::chrono::milliseconds;

std::atomic<bool> g_term = false;

std::map<std::string, std::string> Settings(const std::string& text) {
  std::map<std::string, std::string> settings;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) {
    const size_t equals = word.find('=');
    if (equals != std::string::npos) settings[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return settings;
}

class FakeWorker {
 public:
  FakeWorker(v1::AttemptPlan plan, std::string socket, std::string token)
      : plan_(std::move(plan)),
        socket_(std::move(socket)),
        token_(std::move(token)),
        settings_(Settings(plan_.spec().run_name())) {
    const std::string path =
        plan_.job_dir() + "/attempt-" + std::to_string(plan_.attempt()) + "/spool.pb";
    spool_ = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  }

  int Run() {
    std::thread session([this] { SessionLoop(); });
    const int outcome = Train();
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::seconds(3), [&] { return acknowledged_ == Last(); });
      closing_ = true;
    }
    changed_.notify_all();
    session.join();
    return outcome;
  }

 private:
  int Number(const std::string& name, int otherwise) const {
    auto it = settings_.find(name);
    return it == settings_.end() ? otherwise : std::stoi(it->second);
  }
  int64_t Last() const { return static_cast<int64_t>(records_.size()); }

  void Emit(v1::SpoolRecord record) {
    std::lock_guard lock(mutex_);
    record.set_spool_seq(Last() + 1);
    std::string bytes;
    AppendSpoolRecord(record, &bytes);
    if (write(spool_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) abort();
    records_.push_back(std::move(record));
    ++progress_;
    changed_.notify_all();
  }
  void Stage(v1::Stage stage, bool finished) {
    v1::SpoolRecord record;
    record.mutable_event()->mutable_stage()->set_stage(stage);
    record.mutable_event()->mutable_stage()->set_finished(finished);
    Emit(record);
  }
  void End(v1::AttemptEnd end) {
    v1::SpoolRecord record;
    *record.mutable_end() = std::move(end);
    Emit(record);
  }

  int Train() {
    const std::string state = plan_.job_dir() + "/step";
    const std::string crashed = plan_.job_dir() + "/crashed";
    int step = 0;
    if (auto text = ReadFile(state); text.ok()) step = std::stoi(*text);
    if (plan_.from_stage() == v1::TRAINING) step = 0;
    if (plan_.from_stage() == v1::EXPORTING) step = Number("steps", 20);
    if (plan_.from_checkpoint_step() >= 0) step = static_cast<int>(plan_.from_checkpoint_step());
    Stage(v1::TRAINING, false);
    while (step < Number("steps", 20)) {
      ++step;
      if (Number("crash_at", 0) == step && !ReadFile(crashed).ok()) {
        (void)WriteFileAtomic(crashed, "1");
        std::fprintf(stderr, "\xff\xc3 about to crash at step %d\n", step);
        kill(getpid(), SIGKILL);
      }
      if (Number("crash_always", 0) == step) kill(getpid(), SIGKILL);
      if (Number("silent_at", 0) == step) silent_ = true;
      if (Number("hang_at", 0) == step || silent_) {
        for (;;) std::this_thread::sleep_for(milliseconds(100));
      }
      if (Number("fail_at", 0) == step) {
        v1::AttemptEnd end;
        end.set_outcome(v1::AttemptEnd::FAILED);
        v1::FailureReason reason = v1::INTERNAL;
        v1::FailureReason_Parse(settings_.at("reason"), &reason);
        end.mutable_failure()->set_reason(reason);
        end.mutable_failure()->set_step(step);
        end.mutable_failure()->set_message("told to fail");
        End(end);
        return 1;
      }
      v1::SpoolRecord record;
      record.mutable_event()->mutable_metrics()->set_step(step);
      record.mutable_event()->mutable_metrics()->set_loss(10.0 / step);
      Emit(record);
      if (step % 5 == 0) Checkpoint(state, step);
      std::this_thread::sleep_for(milliseconds(Number("step_ms", 10)));
      if (Number("deaf", 0) == 1) continue;
      if (pause_ || cancel_ || g_term) {
        v1::AttemptEnd end;
        end.set_outcome(cancel_ ? v1::AttemptEnd::CANCELLED : v1::AttemptEnd::PAUSED);
        if (!cancel_) Checkpoint(state, step);
        End(end);
        return 0;
      }
    }
    Stage(v1::TRAINING, true);
    v1::AttemptEnd end;
    end.set_outcome(v1::AttemptEnd::SUCCEEDED);
    end.mutable_result()->set_steps(step);
    end.mutable_result()->set_verdict("improved");
    End(end);
    return 0;
  }

  void Checkpoint(const std::string& state, int step) {
    if (!WriteFileAtomic(state, std::to_string(step)).ok()) abort();
    v1::SpoolRecord record;
    record.mutable_event()->mutable_checkpoint()->set_step(step);
    Emit(record);
  }

  void SessionLoop() {
    for (;;) {
      RunSession();
      std::unique_lock lock(mutex_);
      if (changed_.wait_for(lock, milliseconds(50), [&] { return closing_; })) return;
    }
  }

  void RunSession() {
    grpc::ChannelArguments arguments;
    arguments.SetInt("grpc.use_local_subchannel_pool", 1);
    auto stub = v1::WorkerService::NewStub(grpc::CreateCustomChannel(
        "unix:" + socket_, grpc::InsecureChannelCredentials(), arguments));
    v1::RegisterRequest request;
    request.set_attempt_token(token_);
    request.set_job_id(plan_.job_id());
    request.set_attempt(plan_.attempt());
    request.set_pid(getpid());
    v1::RegisterResponse response;
    grpc::ClientContext register_context;
    register_context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(5));
    grpc::Status status = stub->Register(&register_context, request, &response);
    if (status.error_code() == grpc::StatusCode::ABORTED ||
        status.error_code() == grpc::StatusCode::PERMISSION_DENIED) {
      _exit(75);
    }
    if (!status.ok()) return;
    Acknowledge(response.acknowledged_spool_seq());

    grpc::ClientContext context;
    auto stream = stub->Session(&context);
    v1::WorkerMessage hello;
    hello.mutable_hello()->set_attempt_token(token_);
    hello.mutable_hello()->set_job_id(plan_.job_id());
    hello.mutable_hello()->set_attempt(plan_.attempt());
    bool open = stream->Write(hello);
    std::atomic<bool> reading = true;
    std::thread reader([&] {
      v1::ServerMessage message;
      while (stream->Read(&message)) {
        if (message.has_command()) {
          if (message.command().kind() == v1::Command::FENCED) _exit(75);
          if (message.command().kind() == v1::Command::PAUSE) pause_ = true;
          if (message.command().kind() == v1::Command::CANCEL) cancel_ = true;
        } else {
          Acknowledge(message.acknowledged_spool_seq());
        }
      }
      reading = false;
      changed_.notify_all();
    });
    int64_t sent = response.acknowledged_spool_seq();
    auto next_heartbeat = std::chrono::steady_clock::now();
    while (open && reading) {
      v1::WorkerMessage message;
      {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, milliseconds(20), [&] { return closing_ || Last() > sent; });
        if (closing_) break;
        if (silent_) continue;
        if (Last() > sent) *message.mutable_record() = records_[static_cast<size_t>(sent++)];
      }
      if (message.has_record()) open = stream->Write(message);
      if (std::chrono::steady_clock::now() >= next_heartbeat) {
        v1::WorkerMessage heartbeat;
        heartbeat.mutable_heartbeat()->set_stage(v1::TRAINING);
        heartbeat.mutable_heartbeat()->set_progress_counter(progress_);
        open = open && stream->Write(heartbeat);
        next_heartbeat = std::chrono::steady_clock::now() + milliseconds(50);
      }
    }
    context.TryCancel();
    reader.join();
    stream->Finish();
  }

  void Acknowledge(int64_t seq) {
    std::lock_guard lock(mutex_);
    acknowledged_ = std::max(acknowledged_, seq);
    changed_.notify_all();
  }

  const v1::AttemptPlan plan_;
  const std::string socket_, token_;
  const std::map<std::string, std::string> settings_;
  int spool_ = -1;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::SpoolRecord> records_;
  int64_t acknowledged_ = 0;
  bool closing_ = false;
  std::atomic<int64_t> progress_ = 0;
  std::atomic<bool> pause_ = false, cancel_ = false, silent_ = false;
};

int Query() {
  const std::string bytes((std::istreambuf_iterator<char>(std::cin)), {});
  v1::QueryRequest request;
  if (!request.ParseFromString(bytes)) return 2;
  v1::QueryResponse response;
  if (request.kind() == v1::QueryRequest::DEVICES) {
    response.add_devices()->set_id("cpu");
  } else if (request.kind() == v1::QueryRequest::INSPECT) {
    response.mutable_inspect()->set_family("llama");
  } else if (request.kind() == v1::QueryRequest::PREVIEW) {
    for (int i = 0; i < request.preview_samples(); ++i) response.mutable_preview()->add_samples();
  } else {
    const auto settings = Settings(request.plan().spec().run_name());
    if (settings.count("invalid")) {
      v1::Problem* problem = response.add_problems();
      problem->set_severity(v1::Problem::ERROR);
      problem->set_reason(v1::INVALID_DATA);
      problem->set_field("dataset.path");
      problem->set_message("every record is broken");
      problem->set_allowed("JSONL");
    }
    *response.mutable_resolved_spec() = request.plan().spec();
    response.mutable_estimate()->mutable_memory()->set_device_peak_bytes(100 << 20);
    response.mutable_estimate()->set_seconds(60);
  }
  std::cout << response.SerializeAsString();
  return 0;
}

int Main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "query") return Query();
  if (argc != 2 || std::string(argv[1]) != "run") return 2;
  signal(SIGTERM, [](int) { g_term = true; });
  v1::AttemptPlan plan;
  auto bytes = ReadFile(getenv("FINETUNED_PLAN"));
  if (!bytes.ok() || !plan.ParseFromString(*bytes)) return 2;
  return FakeWorker(plan, getenv("FINETUNED_WORKER_SOCKET"), getenv("FINETUNED_ATTEMPT_TOKEN"))
      .Run();
}

}  // namespace
}  // namespace finetuned

int main(int argc, char** argv) { return finetuned::Main(argc, argv); }
