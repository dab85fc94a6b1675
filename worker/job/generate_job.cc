#include "worker/job/generate_job.h"

#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "proto/spec/spec.h"
#include "worker/adapters/lora.h"
#include "worker/job/adapter_source.h"
#include "worker/job/failure.h"
#include "worker/job/job_model.h"
#include "worker/job/model_assets.h"
#include "worker/job/stage_runner.h"
#include "worker/monitor/memory.h"

namespace finetuned {
namespace {

absl::Status RunStages(StageRunner& run) {
  FT_RETURN_IF_ERROR(run.Begin());
  const v1::AttemptPlan& plan = run.plan();
  FT_ASSIGN_OR_RETURN(const std::string adapter_dir, AdapterOf(plan));
  absl::StatusOr<ModelAssets> assets =
      LoadModelAssets(plan.model_path(), run.spec().dataset().chat_template(), plan.chat_template_path(), /*needs_template=*/true);
  if (!assets.ok()) return FailureStatus(v1::INVALID_SPEC, std::string(assets.status().message()), "dataset.chat_template");
  std::vector<std::vector<int32_t>> prompts;
  for (const std::string& prompt : run.spec().source().prompts()) {
    FT_ASSIGN_OR_RETURN(std::vector<int32_t> ids, PromptIds(*assets, {{.role = "user", .content = prompt}}, plan.submit_time_unix()));
    prompts.push_back(std::move(ids));
  }
  std::unique_ptr<CausalLm> model;
  std::unique_ptr<LoraAdapters> adapters;
  FT_RETURN_IF_ERROR(run.Run(v1::LOADING_MODEL, v1::UNSUPPORTED_MODEL, [&]() -> absl::Status {
    model = LoadJobModel(run);
    return absl::OkStatus();
  }));
  if (!adapter_dir.empty()) {
    FT_RETURN_IF_ERROR(run.Run(v1::INJECTING_ADAPTERS, v1::INVALID_SPEC, [&]() -> absl::Status {
      adapters = LoraAdapters::LoadPeft(*model, adapter_dir);
      return absl::OkStatus();
    }));
  }
  FT_RETURN_IF_ERROR(run.Run(v1::EVALUATING, v1::EVALUATION_FAILED, [&]() -> absl::Status {
    const std::vector<std::string> answers = Answer(run, v1::EVALUATING, *model, *assets, prompts, adapters ? "tuned" : "base");
    std::string lines;
    for (size_t i = 0; i < answers.size(); ++i) {
      v1::GenerationSample& sample = *run.result().add_samples();
      sample.set_prompt(run.spec().source().prompts(static_cast<int>(i)));
      (adapters ? sample.mutable_tuned() : sample.mutable_base())->assign(answers[i]);
      lines += nlohmann::json{{"prompt", sample.prompt()}, {"answer", answers[i]}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    }
    return WriteFileAtomic(run.artifacts() + "/generations.jsonl", lines);
  }));
  const DeviceMemory memory = ReadDeviceMemory(at::Device(plan.device()));
  run.result().set_peak_device_bytes(memory.peak_allocated);
  run.result().set_peak_host_bytes(HostPeakRssBytes());
  run.result().set_predicted_peak_bytes(plan.predicted_peak_bytes());
  return run.CollectArtifacts();
}

}  // namespace

v1::AttemptEnd RunGenerate(const v1::AttemptPlan& plan, Reporter& reporter) {
  StageRunner run(plan, reporter);
  return run.End(CatchAsStatus(v1::INTERNAL, [&] { return RunStages(run); }));
}

}  // namespace finetuned
