#include "server/api/call_metrics.h"

#include "absl/status/status.h"
#include "absl/time/clock.h"

namespace finetuned {
namespace {

class CallMetrics : public grpc::experimental::Interceptor {
 public:
  CallMetrics(Metrics* metrics, std::string method)
      : metrics_(metrics), method_(std::move(method)), start_(absl::Now()) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      metrics_->Add(MetricId::kGrpcRequests, 1,
                    {method_, StatusCodeName(methods->GetSendStatus().error_code())});
      metrics_->Observe(MetricId::kGrpcLatency, absl::ToDoubleSeconds(absl::Now() - start_),
                        {method_});
    }
    methods->Proceed();
  }

 private:
  Metrics* const metrics_;
  const std::string method_;
  const absl::Time start_;
};

}  // namespace

std::string StatusCodeName(grpc::StatusCode code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

grpc::experimental::Interceptor* CallMetricsFactory::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  // "/finetuned.v1.FineTuningService/GetJob": methods of this process only, so the label is
  // bounded.
  const std::string path = info->method();
  return new CallMetrics(metrics_, path.substr(path.rfind('/') + 1));
}

}  // namespace finetuned
