#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/format.h"

namespace finetuned {
namespace {

int Version(Context& context, bool client_only) {
  if (client_only) {
    context.out.Line("finetune " FINETUNED_VERSION);
    return kOk;
  }
  v1::ServerInfo info;
  const grpc::Status status =
      context.connection.Call(&Connection::Stub::GetServerInfo, v1::GetServerInfoRequest(), &info);
  if (context.out.machine() && status.ok()) {
    context.out.Message(info);
    return kOk;
  }
  context.out.Line("finetune " FINETUNED_VERSION);
  if (!status.ok()) return context.Fail(status);
  context.out.Line(absl::StrCat("server   ", Printable(info.version(), true), " at ",
                                context.connection.address(), ", up since ",
                                FormatTime(info.start_time())));
  if (context.out.quiet()) return kOk;
  for (const std::string& root : info.model_roots())
    context.out.Line(absl::StrCat("models   ", Printable(root, true)));
  for (const std::string& root : info.data_roots())
    context.out.Line(absl::StrCat("data     ", Printable(root, true)));
  context.out.Line(absl::StrCat("disk     ", FormatBytes(info.free_disk_bytes()), " free"));
  return kOk;
}

Run Setup(CLI::App& app) {
  auto client_only = std::make_shared<bool>(false);
  app.add_flag("--client", *client_only, "this program's version alone, without asking a server");
  return [client_only](Context& context) { return Version(context, *client_only); };
}

}  // namespace

extern const Command kVersion;
const Command kVersion = {"version",
                          "version of this program and of the server, and the server's roots",
                          "finetune version\nfinetune version --client", &Setup};

}  // namespace finetuned
