#include "worker/job/stage_runner.h"

#include <sys/utsname.h>
#include <torch/version.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <set>
#include <vector>

#include "absl/strings/str_format.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "proto/spec/spec.h"
#include "worker/job/failure.h"
#include "worker/job/proto_json.h"
#include "worker/monitor/memory.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kLogTailBytes = 64 << 10;

// First component below artifacts/ → Artifact.kind. Anything else there is being written.
const std::map<std::string, std::string>& ArtifactKinds() {
  static const auto* kinds = new std::map<std::string, std::string>{
      {"adapter", "adapter"}, {"merged", "merged"}, {"gguf", "gguf"}, {"report.html", "report"}, {"summary.json", "summary"},
      {"metrics.jsonl", "metrics"}, {"generations.jsonl", "generations"}, {"quarantine", "quarantine"}, {"failure", "failure"}};
  return *kinds;
}

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

StageRunner::StageRunner(const v1::AttemptPlan& plan, Reporter& reporter)
    : plan_(plan), reporter_(reporter), stages_(plan.job_dir()), artifacts_(plan.job_dir() + "/artifacts") {}

absl::Status StageRunner::Begin() {
  FT_RETURN_IF_ERROR(MakeDirectories(artifacts_));
  FT_RETURN_IF_ERROR(RemoveAll(artifacts_ + "/failure"));  // of an earlier attempt
  if (plan_.from_stage() != v1::STAGE_UNSPECIFIED) FT_RETURN_IF_ERROR(stages_.InvalidateFrom(plan_.from_stage()));
  reporter_.Log(v1::INFO, absl::StrFormat("attempt %d on %s, seed %d", plan_.attempt(), plan_.device(), spec().seed()));
  return absl::OkStatus();
}

absl::Status StageRunner::Run(v1::Stage stage, v1::FailureReason reason, const std::function<absl::Status()>& body) {
  if (stopping()) return absl::CancelledError("stop requested");
  stage_ = stage;
  reason_ = reason;
  const auto start = std::chrono::steady_clock::now();
  reporter_.StageStarted(stage);
  FT_RETURN_IF_ERROR(CatchAsStatus(reason, body));
  const double seconds = SecondsSince(start);
  (*result_.mutable_stage_seconds())[StageName(stage)] += seconds;
  reporter_.StageFinished(stage, seconds, /*reused=*/false);
  return absl::OkStatus();
}

absl::Status StageRunner::RunDurable(v1::Stage stage, v1::FailureReason reason, const std::string& inputs_sha256,
                                     const std::function<absl::Status(const json&)>& restore,
                                     const std::function<absl::StatusOr<json>()>& body) {
  if (const auto done = stages_.Result(stage, inputs_sha256); done.has_value() && restore(*done).ok()) {
    (*result_.mutable_stage_seconds())[StageName(stage)] += done->value("seconds", 0.0);
    reporter_.StageStarted(stage);
    reporter_.StageFinished(stage, 0, /*reused=*/true);
    return absl::OkStatus();
  }
  return Run(stage, reason, [&]() -> absl::Status {
    const auto start = std::chrono::steady_clock::now();
    FT_ASSIGN_OR_RETURN(json result, body());
    result["seconds"] = SecondsSince(start);
    return stages_.Commit(stage, inputs_sha256, result);
  });
}

void StageRunner::TellProgress(v1::Stage stage, const char* unit, int64_t done, int64_t total, std::string text) {
  v1::Progress progress;
  progress.set_stage(stage);
  progress.set_unit(unit);
  progress.set_done(done);
  progress.set_total(total);
  progress.set_text(std::move(text));
  reporter_.Progress(std::move(progress));
}

absl::Status StageRunner::CollectArtifacts() {
  std::set<std::string> known;
  for (const v1::Artifact& artifact : result_.artifacts()) known.insert(artifact.path());
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(artifacts_, error)) {
    if (entry.is_regular_file()) paths.push_back(fs::relative(entry.path(), artifacts_).string());
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    const auto kind = ArtifactKinds().find(path.substr(0, path.find('/')));
    if (kind == ArtifactKinds().end() || known.count(path) != 0) continue;
    v1::Artifact& artifact = *result_.add_artifacts();
    artifact.set_path(path);
    artifact.set_kind(kind->second);
    artifact.set_size_bytes(fs::file_size(artifacts_ + "/" + path));
    FT_ASSIGN_OR_RETURN(*artifact.mutable_sha256(), Sha256File(artifacts_ + "/" + path));
    v1::JobEvent event;
    *event.mutable_artifact() = artifact;
    reporter_.Emit(std::move(event));
  }
  return absl::OkStatus();
}

absl::Status StageRunner::WriteFailure(const v1::Failure& failure) const {
  const std::string dir = artifacts_ + "/failure";
  FT_RETURN_IF_ERROR(MakeDirectories(dir));
  FT_RETURN_IF_ERROR(WriteFileAtomic(dir + "/failure.json", MessageToJson(failure).dump(1) + "\n"));
  FT_RETURN_IF_ERROR(WriteFileAtomic(dir + "/resolved_spec.json", MessageToJson(spec()).dump(1) + "\n"));
  utsname system = {};
  uname(&system);
  const DeviceMemory memory = ReadDeviceMemory(at::Device(plan_.device()));
  const json environment = {{"torch", TORCH_VERSION},
                            {"system", std::string(system.sysname) + " " + system.release + " " + system.machine},
                            {"device", plan_.device()},
                            {"attempt", plan_.attempt()},
                            {"device_total_bytes", memory.total},
                            {"device_free_bytes", memory.free},
                            {"device_peak_bytes", memory.peak_allocated},
                            {"host_peak_bytes", HostPeakRssBytes()},
                            {"predicted_peak_bytes", plan_.predicted_peak_bytes()}};
  FT_RETURN_IF_ERROR(WriteFileAtomic(dir + "/environment.json", environment.dump(1) + "\n"));
  const auto log = ReadFile(plan_.job_dir() + "/attempt-" + std::to_string(plan_.attempt()) + "/worker.log");
  if (!log.ok()) return absl::OkStatus();  // started by hand: the log went to a terminal
  const size_t begin = log->size() > kLogTailBytes ? log->find('\n', log->size() - kLogTailBytes) + 1 : 0;
  return WriteFileAtomic(dir + "/log_tail.txt", std::string_view(*log).substr(begin));
}

v1::AttemptEnd StageRunner::End(const absl::Status& status) {
  v1::AttemptEnd end;
  const StopRequest stop = reporter_.stop_requested();
  if (status.ok()) {
    end.set_outcome(v1::AttemptEnd::SUCCEEDED);
    *end.mutable_result() = result_;
    return end;
  }
  if (stop == StopRequest::kCancel || stop == StopRequest::kPause) {
    end.set_outcome(stop == StopRequest::kCancel ? v1::AttemptEnd::CANCELLED : v1::AttemptEnd::PAUSED);
    return end;
  }
  end.set_outcome(v1::AttemptEnd::FAILED);
  v1::Failure& failure = *end.mutable_failure();
  failure = FailureOf(status, stage_ == v1::PREPARING_DATA && absl::IsInvalidArgument(status) ? v1::INVALID_SPEC : reason_);
  failure.set_stage(stage_);
  if (stop == StopRequest::kTimeout) {
    failure.set_reason(v1::TIMEOUT);
    failure.set_message("max_runtime is over; a checkpoint was written first");
    failure.add_suggestions("max_runtime=null");
  }
  absl::Status kept = WriteFailure(failure);
  if (kept.ok()) kept = CollectArtifacts();
  if (!kept.ok()) reporter_.Log(v1::WARNING, "the failure artifact is incomplete: " + std::string(kept.message()));
  *end.mutable_result() = result_;
  return end;
}

}  // namespace finetuned
