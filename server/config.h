// The server's configuration: one table of options, the same names as flags (--data-dir), keys of
// the YAML file (data-dir) and environment variables (FINETUNED_DATA_DIR). A flag wins over the
// environment, that over the file, that over the default; `finetuned config` prints each value with
// its source.
//
// Threads: none; parsed once at start. Only log-level is read again on SIGHUP.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace finetuned {

struct Config {
  std::string config;  // the file that was read; empty for none
  // All state: database, jobs, uploads, artifacts. Absolute after parsing.
  std::string data_dir;
  std::string listen = "127.0.0.1:50051";         // HOST:PORT or unix:PATH
  std::string metrics_listen = "127.0.0.1:9464";  // HOST:PORT or off
  std::vector<std::string> model_roots;           // absolute
  std::vector<std::string> data_roots;            // absolute
  std::string worker;                             // path of finetune-worker
  std::string log_format = "text";
  std::string log_level = "info";
  bool insecure = false;
  double memory_fraction = 0.9;
  int64_t host_memory_mib = 0;  // 0: what the machine has available
  int64_t cpu_threads = 0;      // of a worker; 0: all of this process
  int64_t worker_lease_seconds = 120;
  int64_t stall_timeout_seconds = 1800;
  int64_t min_free_disk_mib = 1024;

  // Option name → "default", "file /etc/…", "environment FINETUNED_…" or "flag".
  std::map<std::string, std::string> sources;
};

enum class ServerCommand { kServe, kConfig, kCheck, kVersion, kHelp };

struct CommandLine {
  ServerCommand command = ServerCommand::kServe;
  Config config;     // default for kVersion and kHelp
  std::string help;  // text to print for kHelp
};

// Value of an environment variable, if set.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// INVALID_ARGUMENT names option, value, source, what is allowed, and for an unknown key or flag the
// nearest one. `args` are the arguments without the program's name; `program` is its path (the
// worker is looked for beside it).
absl::StatusOr<CommandLine> ParseCommandLine(const std::string& program,
                                             const std::vector<std::string>& args,
                                             const Environment& environment);

// A YAML file with this configuration, each value with its source as a comment; reading it back
// gives the same values.
std::string DescribeConfig(const Config& config);

// True for unix:PATH and for hosts that only this machine reaches: 127.x.x.x, localhost, [::1].
bool IsLocalAddress(std::string_view listen);

}  // namespace finetuned
