#include "worker/job/export_job.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "proto/spec/spec.h"
#include "worker/job/adapter_source.h"
#include "worker/job/exports.h"
#include "worker/job/failure.h"
#include "worker/job/model_assets.h"
#include "worker/job/proto_json.h"
#include "worker/job/stage_runner.h"
#include "worker/monitor/memory.h"

namespace finetuned {
namespace {

// There is no training data here: the merged model is compared with base and adapter on these. Several scripts, so that
// the comparison does not rest on a handful of embeddings.
constexpr const char* kPrompts[] = {
    "The history of the city begins with a river, a bridge and a market. Explain in two sentences why that is so.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n\n# 这个函数返回第 n 个数。 Это рекурсия.",
};

absl::StatusOr<std::vector<std::vector<int32_t>>> CheckedPrompts(const v1::AttemptPlan& plan) {
  FT_ASSIGN_OR_RETURN(const ModelAssets assets,
                      LoadModelAssets(plan.model_path(), plan.spec().dataset().chat_template(), plan.chat_template_path(), /*needs_template=*/false));
  std::vector<std::vector<int32_t>> prompts;
  for (const char* text : kPrompts) {
    prompts.push_back(assets.tokenizer->Encode(text, /*add_special_tokens=*/true));
    if (prompts.back().empty()) return absl::FailedPreconditionError(plan.model_path() + ": the tokenizer makes no token of plain text");
  }
  return prompts;
}

absl::Status RunStages(StageRunner& run) {
  FT_RETURN_IF_ERROR(run.Begin());
  const v1::AttemptPlan& plan = run.plan();
  ExportInputs inputs;
  inputs.model_dir = plan.model_path();
  FT_ASSIGN_OR_RETURN(inputs.adapter_dir, AdapterOf(plan));
  FT_ASSIGN_OR_RETURN(inputs.adapter_sha256, Sha256File(inputs.adapter_dir + "/adapter_model.safetensors"));
  FT_ASSIGN_OR_RETURN(inputs.prompts, CheckedPrompts(plan));
  inputs.provenance = {{"base_model", run.spec().model_name_or_path()}, {"job", plan.job_id()}, {"adapter_sha256", inputs.adapter_sha256}};
  if (run.spec().source().has_job_id()) inputs.provenance["trained_by"] = run.spec().source().job_id();
  const auto& formats = run.spec().export_().formats();
  if (std::find(formats.begin(), formats.end(), "adapter") != formats.end()) {
    FT_RETURN_IF_ERROR(MakeDirectories(run.artifacts() + "/adapter"));
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors"}) {
      FT_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(inputs.adapter_dir + "/" + name));
      FT_RETURN_IF_ERROR(WriteFileAtomic(run.artifacts() + "/adapter/" + name, bytes));
    }
    FT_ASSIGN_OR_RETURN(const std::string copied, Sha256File(run.artifacts() + "/adapter/adapter_model.safetensors"));
    if (copied != inputs.adapter_sha256) {
      return FailureStatus(v1::EXPORT_FAILED, "the copied adapter reads back other than its source; check the disk");
    }
    v1::VerifiedExport& adapter = *run.result().add_exports();
    adapter.set_name("adapter");
    adapter.set_proof("read back equal in bytes to its source");
  }
  FT_RETURN_IF_ERROR(WriteExports(run, inputs));
  std::vector<std::string> names;
  for (const v1::VerifiedExport& verified : run.result().exports()) names.push_back(verified.name());
  run.result().set_verdict(absl::StrCat("verified: ", absl::StrJoin(names, ", ")));
  run.result().set_peak_host_bytes(HostPeakRssBytes());
  run.result().set_predicted_peak_bytes(plan.predicted_peak_bytes());
  FT_RETURN_IF_ERROR(WriteFileAtomic(run.artifacts() + "/summary.json", MessageToJson(run.result()).dump(1) + "\n"));
  return run.CollectArtifacts();
}

}  // namespace

v1::AttemptEnd RunExport(const v1::AttemptPlan& plan, Reporter& reporter) {
  StageRunner run(plan, reporter);
  return run.End(CatchAsStatus(v1::EXPORT_FAILED, [&] { return RunStages(run); }));
}

}  // namespace finetuned
