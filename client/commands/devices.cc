#include <CLI/CLI.hpp>

#include "client/cli.h"
#include "client/format.h"

namespace finetuned {
namespace {

int Devices(Context& context) {
  v1::ListDevicesResponse response;
  const grpc::Status status =
      context.connection.Call(&Connection::Stub::ListDevices, v1::ListDevicesRequest(), &response);
  if (!status.ok()) return context.Fail(status);
  if (context.out.machine()) {
    context.out.Message(response);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"DEVICE", "NAME", "MEMORY", "FREE", "RESERVED", "CAPABILITY", "DRIVER", "USABLE"}};
  for (const v1::Device& device : response.devices()) {
    rows.push_back(
        {Printable(device.id(), true), Printable(device.name(), true),
         FormatBytes(device.total_bytes()), FormatBytes(device.free_bytes()),
         FormatBytes(device.reserved_bytes()), device.compute_capability(), device.driver(),
         device.usable()
             ? context.out.Paint(Color::kGreen, "yes")
             : context.out.Paint(Color::kRed, "no: " + Printable(device.reason(), true))});
  }
  context.out.Table(rows);
  return kOk;
}

Run Setup(CLI::App&) { return &Devices; }

}  // namespace

extern const Command kDevices;
const Command kDevices = {
    "devices", "the server's GPUs and CPU: memory, what is reserved, and why one is unusable",
    "finetune devices", &Setup};

}  // namespace finetuned
