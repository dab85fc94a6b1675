// Counts and times every call by method and code, reflection and health included: an interceptor,
// so that no method can be forgotten.
#pragma once

#include "grpcpp/support/server_interceptor.h"
#include "server/metrics/metrics.h"

namespace finetuned {

class CallMetricsFactory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  // `metrics` outlives the server.
  explicit CallMetricsFactory(Metrics* metrics) : metrics_(metrics) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  Metrics* const metrics_;
};

// "NOT_FOUND" for StatusCode 5.
std::string StatusCodeName(grpc::StatusCode code);

}  // namespace finetuned
