// From what stands on the command line to a JobSpec: file, --set, local paths, uploads.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/cli.h"

namespace finetuned {

struct JobInput {
  std::string file;  // "-" is standard input; empty: --set alone
  std::vector<std::string> settings;
  bool upload = false;
};
// Adds the FILE argument, --set and --upload.
void AddJobOptions(CLI::App& app, JobInput* input);

struct LoadedJob {
  v1::JobSpec spec;
  std::map<std::string, int> lines;
};
// Reads, maps and prints warnings. Errors are printed; then the exit code is in *code and the
// result is empty. Paths that exist here as written, relative to the working directory, are sent as
// absolute paths: the server resolves them under its roots. With `upload`, data files that exist
// here are sent and named upload:SHA256 instead.
std::optional<LoadedJob> LoadJob(Context& context, const JobInput& input, int* code);

// "key=value" into the spec. INVALID_ARGUMENT without '='; warnings for keys without effect are
// printed.
absl::Status ApplySetting(const Output& out, const std::string& setting, v1::JobSpec* spec);

// A random UUID (version 4).
std::string NewRequestId();

// `path` as an absolute path if it exists here, else as it is.
std::string LocalPath(const std::string& path);

}  // namespace finetuned
