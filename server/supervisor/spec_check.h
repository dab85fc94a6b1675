// What the server itself can say about a spec: keys and values (proto/spec), paths below the roots,
// devices, the source job. No model or data file is opened; the worker's short mode does that.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "finetuned/v1/service.pb.h"
#include "finetuned/v1/worker.pb.h"

namespace finetuned {

// Real path below the configured roots. The error's text names the path and what is allowed; its
// code says what it is: NOT_FOUND (nothing there), PERMISSION_DENIED (out of the roots, also by a
// link), INVALID_ARGUMENT (no such form).
using ResolvePath = std::function<absl::StatusOr<std::string>(const std::string& path)>;
struct PathLookup {
  ResolvePath model;  // a directory, or a name under a model root
  ResolvePath data;   // a file under a data root, or upload:SHA256
};

struct DeviceFacts {
  bool has_gpu = false;     // a usable one
  std::string gpu_problem;  // why there is none
};

// The job a spec names as source.job_id.
struct SourceJob {
  v1::Job job;
  std::string job_dir;
};

struct SpecCheck {
  // As submitted, with what it takes over from its source job; and with every default filled in.
  v1::JobSpec effective;
  v1::JobSpec resolved;
  // Errors and warnings, in the order of the keys.
  std::vector<v1::Problem> problems;
  // Spec, paths and device ("cpu" or "cuda:0") set; the rest is the attempt's.
  v1::AttemptPlan plan;
};

// kinds export, merge and generate take every key they do not set from the source job.
SpecCheck CheckSpec(const v1::JobSpec& submitted, const std::optional<SourceJob>& source,
                    const PathLookup& paths, const DeviceFacts& devices);

// True when the job's directory holds an adapter to work on: the exported one or a checkpoint.
bool HasAdapter(const std::string& job_dir);

// Whether a change of this key (as written in RerunJobRequest.overrides) leaves the stages before
// `from_stage` valid.
bool OverrideAllowed(std::string_view key, v1::Stage from_stage);

}  // namespace finetuned
