#include "server/api/grpc_server.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "server/api/call_metrics.h"
#include "server/api/request_checks.h"

namespace finetuned {
namespace {

constexpr char kServiceName[] = "finetuned.v1.FineTuningService";

// Removes a socket file that a server which was killed left behind.
absl::Status RemoveStaleSocket(const std::string& path) {
  std::error_code error;
  const auto type = std::filesystem::symlink_status(path, error).type();
  if (type == std::filesystem::file_type::not_found) return absl::OkStatus();
  if (type != std::filesystem::file_type::socket)
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is there and is no socket; choose another path for listen"));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return absl::InvalidArgumentError(absl::StrCat(path, " is too long for a socket"));
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  const bool answered = connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  const int connect_error = errno;
  close(fd);
  if (answered)
    return absl::UnavailableError(absl::StrCat(
        "another server listens on ", path, "; stop it or choose another address with --listen"));
  if (connect_error != ECONNREFUSED) return ErrnoStatus(connect_error, path);
  if (unlink(path.c_str()) != 0) return ErrnoStatus(errno, path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(
    const std::vector<std::string>& listen, ServiceParts parts, Metrics* metrics) {
  std::unique_ptr<GrpcServer> result(new GrpcServer());
  parts.watches = &result->watches_;
  result->service_ = std::make_unique<FineTuningServiceImpl>(std::move(parts));
  static const bool plugins = [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  (void)plugins;

  grpc::ServerBuilder builder;
  builder.RegisterService(result->service_.get());
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  // Two servers on one port would share its connections; the second must fail instead.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Clients that watch for days ping to notice a dead connection; the default would punish them.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  result->ports_.resize(listen.size(), -1);
  for (size_t i = 0; i < listen.size(); ++i) {
    if (absl::StartsWith(listen[i], "unix:"))
      FT_RETURN_IF_ERROR(RemoveStaleSocket(listen[i].substr(5)));
    builder.AddListeningPort(listen[i], grpc::InsecureServerCredentials(), &result->ports_[i]);
  }
  if (metrics != nullptr) {
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>>
        interceptors;
    interceptors.push_back(std::make_unique<CallMetricsFactory>(metrics));
    builder.experimental().SetInterceptorCreators(std::move(interceptors));
  }
  result->server_ = builder.BuildAndStart();
  if (result->server_ == nullptr)
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", absl::StrJoin(listen, ", "),
                     ": another program has the address, its directory is missing, or the host is "
                     "not one of this machine's; choose "
                     "another with --listen"));
  for (size_t i = 0; i < listen.size(); ++i)
    if (absl::StartsWith(listen[i], "unix:")) {
      // Whoever may reach the socket may submit jobs.
      chmod(listen[i].substr(5).c_str(), 0660);
      result->ports_[i] = 0;
    }
  result->server_->GetHealthCheckService()->SetServingStatus(kServiceName, true);
  return result;
}

GrpcServer::~GrpcServer() { Shutdown(absl::ZeroDuration()); }

void GrpcServer::StopAccepting() {
  if (server_ == nullptr) return;
  server_->GetHealthCheckService()->SetServingStatus(false);
  service_->Stop();
  watches_.EndAll();
}

void GrpcServer::Shutdown(absl::Duration grace) {
  if (server_ == nullptr) return;
  StopAccepting();
  server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  server_->Wait();
  server_.reset();
}

}  // namespace finetuned
