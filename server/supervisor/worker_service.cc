#include "server/supervisor/worker_service.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "finetuned/v1/worker.grpc.pb.h"
#include "grpcpp/grpcpp.h"
#include "server/supervisor/spool.h"

namespace finetuned {
namespace {

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

// Keeps itself alive until OnDone, the last call gRPC makes.
class Session : public grpc::ServerBidiReactor<v1::WorkerMessage, v1::ServerMessage>,
                public WorkerLink {
 public:
  static std::shared_ptr<Session> Open(const WorkerServiceHandlers* handlers) {
    auto session = std::shared_ptr<Session>(new Session(handlers));
    session->self_ = session;
    session->StartRead(&session->incoming_);
    return session;
  }

  void Send(v1::ServerMessage message) override {
    absl::MutexLock lock(&mutex_);
    if (finished_ || end_.has_value()) return;
    outgoing_.push_back(std::move(message));
    Advance();
  }

  void Close(absl::Status status) override {
    absl::MutexLock lock(&mutex_);
    if (!end_.has_value()) end_ = ToGrpc(status);
    Advance();
  }

  void RecordsDone(int count) override {
    absl::MutexLock lock(&mutex_);
    open_records_ -= count;
    if (read_waits_ && open_records_ < kMaxOpenRecords && !finished_) {
      read_waits_ = false;
      StartRead(&incoming_);
    }
  }

  void OnReadDone(bool ok) override {
    if (!ok) return Close(absl::OkStatus());
    const bool record = incoming_.has_record();
    handlers_->on_message(self_, std::move(incoming_));
    incoming_.Clear();
    absl::MutexLock lock(&mutex_);
    if (record) ++open_records_;
    if (finished_) return;
    if (open_records_ < kMaxOpenRecords) {
      StartRead(&incoming_);
    } else {
      read_waits_ = true;
    }
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    outgoing_.pop_front();
    if (!ok) {
      outgoing_.clear();
      if (!end_.has_value()) end_ = grpc::Status::CANCELLED;
    }
    Advance();
  }

  void OnCancel() override {
    absl::MutexLock lock(&mutex_);
    if (!writing_) outgoing_.clear();
    if (!end_.has_value()) end_ = grpc::Status::CANCELLED;
    Advance();
  }

  void OnDone() override {
    handlers_->on_closed(self_);
    self_.reset();  // may destroy *this
  }

 private:
  explicit Session(const WorkerServiceHandlers* handlers) : handlers_(handlers) {}

  // Starts the next write, or the end once nothing is left to write.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return;
    if (!outgoing_.empty()) {
      writing_ = true;
      StartWrite(&outgoing_.front());
    } else if (end_.has_value()) {
      finished_ = true;
      Finish(*end_);
    }
  }

  const WorkerServiceHandlers* const handlers_;
  std::shared_ptr<Session> self_;
  v1::WorkerMessage incoming_;  // owned by the read in progress

  absl::Mutex mutex_;
  std::deque<v1::ServerMessage> outgoing_ ABSL_GUARDED_BY(mutex_);  // front: being written
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool read_waits_ ABSL_GUARDED_BY(mutex_) = false;
  int open_records_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

class Service : public v1::WorkerService::CallbackService {
 public:
  explicit Service(WorkerServiceHandlers handlers) : handlers_(std::move(handlers)) {}

  grpc::ServerUnaryReactor* Register(grpc::CallbackServerContext* context,
                                     const v1::RegisterRequest* request,
                                     v1::RegisterResponse* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    handlers_.on_register(*request,
                          [reactor, response](absl::StatusOr<v1::RegisterResponse> answer) {
                            if (answer.ok()) *response = *std::move(answer);
                            reactor->Finish(ToGrpc(answer.status()));
                          });
    return reactor;
  }

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::ServerMessage>* Session(
      grpc::CallbackServerContext*) override {
    return finetuned::Session::Open(&handlers_).get();
  }

 private:
  const WorkerServiceHandlers handlers_;
};

class WorkerServerImpl : public WorkerServer {
 public:
  explicit WorkerServerImpl(WorkerServiceHandlers handlers) : service_(std::move(handlers)) {}
  ~WorkerServerImpl() override { Shutdown(); }

  absl::Status Start(const std::string& socket_path) {
    if (socket_path.size() >= sizeof(sockaddr_un::sun_path)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the worker socket's path ", socket_path, " has ", socket_path.size(),
          " bytes; a unix socket's path may have ", sizeof(sockaddr_un::sun_path) - 1));
    }
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("unix:" + socket_path, grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(static_cast<int>(kMaxSpoolRecordBytes));
    builder.SetMaxSendMessageSize(static_cast<int>(kMaxSpoolRecordBytes));
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (!server_) {
      return absl::FailedPreconditionError(absl::StrCat(
          "cannot listen for workers on ", socket_path,
          "; is its directory there and writable, and no other server running on it?"));
    }
    chmod(socket_path.c_str(), 0600);
    return absl::OkStatus();
  }

  void Shutdown() override {
    if (!server_) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    server_.reset();
  }

 private:
  Service service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerServer>> StartWorkerServer(const std::string& socket_path,
                                                                WorkerServiceHandlers handlers) {
  auto server = std::make_unique<WorkerServerImpl>(std::move(handlers));
  if (absl::Status status = server->Start(socket_path); !status.ok()) return status;
  return std::unique_ptr<WorkerServer>(std::move(server));
}

}  // namespace finetuned
