#include "worker/job/adapter_source.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/job/failure.h"

namespace finetuned {

absl::StatusOr<std::string> AdapterOf(const v1::AttemptPlan& plan) {
  const v1::Source& source = plan.spec().source();
  // plan.adapter_path may also be lora.resume_from_adapter, taken over from the source job.
  if (source.has_adapter_path()) return plan.adapter_path();
  if (plan.source_job_dir().empty()) return std::string();
  std::string adapter = plan.source_job_dir() + "/artifacts/adapter";
  std::string wanted = "a final adapter";
  const CheckpointStore store(plan.source_job_dir() + "/checkpoints", /*keep_newest=*/0, [](v1::Level, const std::string&) {});
  if (source.has_checkpoint_step()) {
    adapter = store.PathOf(source.checkpoint_step()) + "/adapter";
    wanted = absl::StrCat("a checkpoint at step ", source.checkpoint_step());
  }
  if (std::filesystem::exists(adapter + "/adapter_model.safetensors")) return adapter;
  std::vector<int64_t> steps;
  for (const v1::Checkpoint& checkpoint : store.List()) steps.push_back(checkpoint.step());
  return FailureStatus(v1::INVALID_SPEC,
                       absl::StrCat("job ", source.job_id(), " has not ", wanted, "; its checkpoints are at ",
                                    steps.empty() ? std::string("no step") : absl::StrCat("step ", absl::StrJoin(steps, ", ")),
                                    "; name one, or wait until the job has finished"),
                       "source.checkpoint_step");
}

}  // namespace finetuned
