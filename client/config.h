// Which server to talk to.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace finetuned {

// The configuration file, by default $XDG_CONFIG_HOME/finetuned/config.yaml (~/.config/…):
//   current: lab
//   contexts:
//     lab: {server: gpu1.example:50051}
//     local: {server: 127.0.0.1:50051}
std::string ConfigPath();

struct ServerChoice {
  std::string address;
  // "--server", "FINETUNED_SERVER", "context lab of PATH" or "default": for error messages.
  std::string source;
};

// In order: `flag` (--server), FINETUNED_SERVER, `context` (--context), the file's current context,
// 127.0.0.1:50051. INVALID_ARGUMENT for a broken file or a context that is not there; the message
// lists those that are.
absl::StatusOr<ServerChoice> ChooseServer(const std::string& flag, const std::string& context,
                                          const std::string& config_path);

}  // namespace finetuned
