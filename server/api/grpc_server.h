// The gRPC server around the service: addresses, limits, health, reflection, call metrics, and the
// order of its end.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/api/service.h"
#include "server/metrics/metrics.h"

namespace finetuned {

class GrpcServer {
 public:
  // Listens on HOST:PORT or unix:PATH. UNAVAILABLE when the address is taken or not this machine's.
  // A socket file that nobody listens on is replaced, one that somebody does is not. `metrics` may
  // be null. The parts outlive the server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const std::vector<std::string>& listen,
                                                           ServiceParts parts, Metrics* metrics);
  ~GrpcServer();

  // Ports, in the order of the addresses; 0 for unix sockets.
  const std::vector<int>& ports() const { return ports_; }

  // First step of the end: health says NOT_SERVING, new calls get UNAVAILABLE, watches end with the
  // after_seq to resume from. Returns at once.
  void StopAccepting();
  // Last step: waits up to `grace` for calls under way, cancels the rest and ends the server's
  // threads. Whoever holds callbacks of open calls must have answered them (JobController::Shutdown
  // does), or this waits for them.
  void Shutdown(absl::Duration grace);

 private:
  GrpcServer() = default;

  WatchRegistry watches_;
  std::unique_ptr<FineTuningServiceImpl> service_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<int> ports_;
};

}  // namespace finetuned
