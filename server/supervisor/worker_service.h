// The gRPC service that worker processes connect to, on a unix socket of the data directory. It
// only moves messages; what they mean is decided by its handlers.
//
// Threads: handlers are called on gRPC threads and must not block. WorkerLink may be used from any
// thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "finetuned/v1/worker.pb.h"

namespace finetuned {

// The server's end of one Session stream. Messages sent after the stream has ended are dropped.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;
  virtual void Send(v1::ServerMessage message) = 0;
  // Ends the stream after what was sent before.
  virtual void Close(absl::Status status) = 0;
  // `count` records of on_message are dealt with. The stream stops reading while kMaxOpenRecords
  // are not: a worker that is faster than the store is held back instead of filling memory.
  virtual void RecordsDone(int count) = 0;
};
inline constexpr int kMaxOpenRecords = 1024;

struct WorkerServiceHandlers {
  std::function<void(v1::RegisterRequest,
                     std::function<void(absl::StatusOr<v1::RegisterResponse>)>)>
      on_register;
  std::function<void(std::shared_ptr<WorkerLink>, v1::WorkerMessage)> on_message;
  std::function<void(std::shared_ptr<WorkerLink>)> on_closed;  // once for each link
};

class WorkerServer {
 public:
  virtual ~WorkerServer() = default;
  // Ends all streams with UNAVAILABLE (workers reconnect to the next server) and waits for their
  // ends. Idempotent.
  virtual void Shutdown() = 0;
};

// Listens on `socket_path`, mode 0600, replacing a stale socket there. FAILED_PRECONDITION names
// the path.
absl::StatusOr<std::unique_ptr<WorkerServer>> StartWorkerServer(const std::string& socket_path,
                                                                WorkerServiceHandlers handlers);

}  // namespace finetuned
