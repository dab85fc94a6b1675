#include "client/connection.h"

#include <chrono>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace finetuned {
namespace {

bool IsLocal(const std::string& address) {
  return absl::StartsWith(address, "127.") || absl::StartsWith(address, "localhost") ||
         absl::StartsWith(address, "[::1]") || absl::StartsWith(address, "unix:");
}

}  // namespace

Connection::Stub& Connection::stub() {
  if (stub_ == nullptr) {
    setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);  // our own messages say it better
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(256 << 20);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 3000);
    // A peer that is gone without a word (host lost, cable out) is noticed.
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
    if (IsLocal(server_.address)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    channel_ =
        grpc::CreateCustomChannel(server_.address, grpc::InsecureChannelCredentials(), arguments);
    stub_ = v1::FineTuningService::NewStub(channel_);
  }
  return *stub_;
}

grpc::Status Connection::WaitReady(int timeout_ms) {
  stub();
  if (ready_ && channel_->GetState(false) == GRPC_CHANNEL_READY) return grpc::Status::OK;
  const auto deadline = std::chrono::system_clock::now() + std::chrono::milliseconds(timeout_ms);
  // In slices, so that Ctrl-C is heard.
  while (true) {
    const auto slice =
        std::min(deadline, std::chrono::system_clock::now() + std::chrono::milliseconds(200));
    if (channel_->WaitForConnected(slice)) {
      ready_ = true;
      return grpc::Status::OK;
    }
    if (Interrupted()) return grpc::Status(grpc::StatusCode::CANCELLED, "interrupted");
    if (std::chrono::system_clock::now() >= deadline) break;
  }
  return Explain(grpc::Status(grpc::StatusCode::UNAVAILABLE, "no answer"));
}

grpc::Status Connection::Explain(grpc::Status status) const {
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE || !status.error_details().empty()) {
    return status;
  }
  return grpc::Status(
      grpc::StatusCode::UNAVAILABLE,
      absl::StrCat("cannot reach the server at ", server_.address, " (from ", server_.source,
                   "): ", status.error_message(), "\n  start it with: finetuned --listen ",
                   server_.address,
                   " --data-dir DIR --model-root DIR --data-root DIR\n"
                   "  or name another: --server HOST:PORT, FINETUNED_SERVER, or a context in ",
                   ConfigPath()));
}

void Connection::SetDeadline(grpc::ClientContext* context, int seconds) {
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(seconds));
}

}  // namespace finetuned
