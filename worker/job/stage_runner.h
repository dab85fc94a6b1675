// What the recipes of all kinds stand on: stages that are told to the server, skipped where their durable result is there,
// and whose errors become the Failure of an attempt.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "finetuned/v1/worker.pb.h"
#include "nlohmann/json.hpp"
#include "worker/job/reporter.h"
#include "worker/job/stage_store.h"

namespace finetuned {

class StageRunner {
 public:
  // Both must outlive it.
  StageRunner(const v1::AttemptPlan& plan, Reporter& reporter);

  const v1::AttemptPlan& plan() const { return plan_; }
  const v1::JobSpec& spec() const { return plan_.spec(); }
  Reporter& reporter() { return reporter_; }
  StageStore& stages() { return stages_; }
  const std::string& artifacts() const { return artifacts_; }  // <job_dir>/artifacts
  v1::JobResult& result() { return result_; }
  bool stopping() const { return reporter_.stop_requested() != StopRequest::kNone; }

  // Before the first stage: the artifact directory, and what a rerun from a stage forgets.
  absl::Status Begin();
  // Tells start and end of a stage around `body`, whose exceptions become a failure with `reason`. CANCELLED before it
  // starts when a stop was requested.
  absl::Status Run(v1::Stage stage, v1::FailureReason reason, const std::function<absl::Status()>& body);
  // A durable one: skipped where its result with these inputs is there and `restore` takes it; else `body` makes one.
  absl::Status RunDurable(v1::Stage stage, v1::FailureReason reason, const std::string& inputs_sha256,
                          const std::function<absl::Status(const nlohmann::json&)>& restore,
                          const std::function<absl::StatusOr<nlohmann::json>()>& body);
  // Whatever is left to do belongs to this stage now, though its start is told later (loading the model for training).
  void Enter(v1::Stage stage) { stage_ = stage; }
  void TellProgress(v1::Stage stage, const char* unit, int64_t done, int64_t total, std::string text);

  // Sums every file below artifacts() that belongs to a known kind and is not in result() yet into it, and tells the
  // server. Files that are in it must not change any more.
  absl::Status CollectArtifacts();
  // The attempt's last word. `status` OK: succeeded. A failure leaves failure/ among the artifacts: the failure itself,
  // the resolved spec, versions and device, and the end of the log.
  v1::AttemptEnd End(const absl::Status& status);

 private:
  absl::Status WriteFailure(const v1::Failure& failure) const;

  const v1::AttemptPlan& plan_;
  Reporter& reporter_;
  StageStore stages_;
  const std::string artifacts_;
  v1::Stage stage_ = v1::STAGE_UNSPECIFIED;
  v1::FailureReason reason_ = v1::INTERNAL;  // of a failure in stage_ that does not say itself
  v1::JobResult result_;
};

}  // namespace finetuned
