// The channel to the server, opened at the first call.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "client/config.h"
#include "client/interrupt.h"
#include "finetuned/v1/service.grpc.pb.h"

namespace finetuned {

class Connection {
 public:
  using Stub = v1::FineTuningService::StubInterface;

  explicit Connection(ServerChoice server) : server_(std::move(server)) {}

  const std::string& address() const { return server_.address; }

  // Waits up to `timeout_ms` for the server. UNAVAILABLE names the address, where it came from and
  // how to start one.
  grpc::Status WaitReady(int timeout_ms = 2500);
  Stub& stub();

  // A unary call: fails fast when there is no server, is cancelled by Ctrl-C, and has a deadline.
  template <typename Request, typename Response>
  grpc::Status Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response, int timeout_seconds = 60) {
    if (grpc::Status ready = WaitReady(); !ready.ok()) return ready;
    grpc::ClientContext context;
    SetDeadline(&context, timeout_seconds);
    CancelOnInterrupt guard(&context);
    return Explain((stub().*method)(&context, request, response));
  }

  static void SetDeadline(grpc::ClientContext* context, int seconds);

 private:
  // A connection lost in mid-call is told like one that never was.
  grpc::Status Explain(grpc::Status status) const;

  ServerChoice server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Stub> stub_;
  bool ready_ = false;
};

}  // namespace finetuned
