// The short modes: what validate, estimate, inspect, preview and devices need to know, without a job.
#include <ATen/Context.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "proto/spec/spec.h"
#include "worker/adapters/lora.h"
#include "worker/data/prepared_data.h"
#include "worker/job/attempt.h"
#include "worker/job/failure.h"
#include "worker/job/model_assets.h"
#include "worker/models/model_summary.h"
#include "worker/monitor/memory.h"
#include "worker/planning/estimate.h"

namespace finetuned {
namespace {

void AddProblem(const std::string& field, const std::string& message, v1::FailureReason reason, v1::QueryResponse* response) {
  v1::Problem& problem = *response->add_problems();
  problem.set_severity(v1::Problem::ERROR);
  problem.set_field(field);
  problem.set_message(message);
  problem.set_reason(reason);
}

// Empty when the directory cannot be used; the problem is in the response then.
std::optional<ModelSummary> Inspect(const std::string& model_path, v1::QueryResponse* response) {
  std::optional<ModelSummary> summary;
  const absl::Status status = CatchAsStatus(v1::UNSUPPORTED_MODEL, [&] {
    summary = InspectModelDir(model_path);
    return absl::OkStatus();
  });
  if (!status.ok()) AddProblem("model_name_or_path", std::string(status.message()), v1::UNSUPPORTED_MODEL, response);
  return summary;
}

bool NeedsTemplate(const v1::JobSpec& spec) {
  if (spec.kind() == "export" || spec.kind() == "merge") return false;
  return spec.dataset().shape() != "text" && spec.dataset().shape() != "auto";
}

// What the job asks for and this build of the worker cannot do yet.
void RefuseNotBuilt(const v1::JobSpec& spec, v1::QueryResponse* response) {
  if (spec.kind() != "prepare" && spec.kind() != "evaluate") return;
  AddProblem("kind", absl::StrCat("jobs of kind ", spec.kind(), " are not built yet; allowed: finetune, export, merge, generate"), v1::INVALID_SPEC,
             response);
}

void Validate(const v1::QueryRequest& request, v1::QueryResponse* response) {
  const v1::AttemptPlan& plan = request.plan();
  RefuseNotBuilt(plan.spec(), response);
  const std::optional<ModelSummary> summary = Inspect(plan.model_path(), response);
  if (!summary.has_value()) return;
  const absl::StatusOr<ModelAssets> assets =
      LoadModelAssets(plan.model_path(), plan.spec().dataset().chat_template(), plan.chat_template_path(), NeedsTemplate(plan.spec()));
  if (!assets.ok()) {
    const bool tokenizer = absl::StrContains(assets.status().message(), "tokenizer");
    AddProblem(tokenizer ? "model_name_or_path" : "dataset.chat_template", std::string(assets.status().message()),
               tokenizer ? v1::UNSUPPORTED_MODEL : v1::INVALID_SPEC, response);
    return;
  }
  const DeviceProfile device = ProbeDevice(plan.device().empty() ? "cpu" : plan.device());
  const ResolvedAuto resolved = ResolveAuto(plan.spec(), *summary, device);
  for (v1::Problem& problem : CheckAgainstModel(resolved.spec, *summary, device)) *response->add_problems() = std::move(problem);
  *response->mutable_resolved_spec() = resolved.spec;
  if (!HasErrors({response->problems().begin(), response->problems().end()})) {
    *response->mutable_estimate() = EstimateRun(resolved.spec, *summary, device, 0, 0);
  }
  if (request.sweep().empty()) return;
  const std::vector<std::string> parts = absl::StrSplit(request.sweep(), absl::MaxSplits('=', 1));
  if (parts.size() != 2) {
    AddProblem("sweep", absl::StrCat("'", request.sweep(), "' is not key=value,value,…; example: r=8,16,32"), v1::INVALID_SPEC, response);
    return;
  }
  for (const std::string& value : std::vector<std::string>(absl::StrSplit(parts[1], ','))) {
    v1::EstimateRow& row = *response->add_rows();
    row.set_setting(absl::StrCat(parts[0], "=", value));
    v1::JobSpec spec = plan.spec();
    if (absl::Status status = SetKey(&spec, parts[0], value); !status.ok()) {
      v1::Problem& problem = *row.add_problems();
      problem.set_severity(v1::Problem::ERROR);
      problem.set_field(parts[0]);
      problem.set_message(std::string(status.message()));
      continue;
    }
    const ResolvedAuto swept = ResolveAuto(ResolveDefaults(spec), *summary, device);
    for (v1::Problem& problem : CheckAgainstModel(swept.spec, *summary, device)) *row.add_problems() = std::move(problem);
    *row.mutable_estimate() = EstimateRun(swept.spec, *summary, device, 0, 0);
  }
}

void InspectModel(const v1::QueryRequest& request, v1::QueryResponse* response) {
  const v1::AttemptPlan& plan = request.plan();
  const std::optional<ModelSummary> summary = Inspect(plan.model_path(), response);
  if (!summary.has_value()) return;
  const DeviceProfile device = ProbeDevice(plan.device().empty() ? "cpu" : plan.device());
  const v1::JobSpec spec = ResolveAuto(ResolveDefaults(plan.spec()), *summary, device).spec;
  v1::InspectModelResponse& out = *response->mutable_inspect();
  out.set_family(summary->config.model_type);
  out.set_architecture(summary->config.architecture);
  out.set_total_parameters(summary->parameters);
  out.set_max_position_embeddings(summary->config.max_position_embeddings);
  out.set_vocab_size(summary->config.vocab_size);
  std::vector<std::string> names;
  for (const LinearInfo& linear : summary->linears) names.push_back(linear.name);
  std::vector<std::string> selected;
  const absl::Status status = CatchAsStatus(v1::INVALID_SPEC, [&] {
    selected = SelectTargetModules(names, spec.lora());
    return absl::OkStatus();
  });
  if (!status.ok()) AddProblem("lora.target_modules", std::string(status.message()), v1::INVALID_SPEC, response);
  for (const LinearInfo& linear : summary->linears) {
    v1::LinearModule& module = *out.add_linears();
    module.set_name(linear.name);
    module.set_in_features(linear.in_features);
    module.set_out_features(linear.out_features);
    module.set_max_useful_rank(std::min(linear.in_features, linear.out_features));
    module.set_selected(std::find(selected.begin(), selected.end(), linear.name) != selected.end());
  }
  const v1::Estimate estimate = EstimateRun(spec, *summary, device, 0, 0);
  out.set_trainable_parameters(estimate.trainable_parameters());
  *out.mutable_bytes_by_category() = estimate.memory().device_bytes();
  const absl::StatusOr<ModelAssets> assets = LoadModelAssets(plan.model_path(), "auto", "", /*needs_template=*/false);
  if (assets.ok()) out.set_chat_template(assets->template_origin);
  else out.add_advice(std::string(assets.status().message()));
}

void Preview(const v1::QueryRequest& request, v1::QueryResponse* response) {
  const v1::AttemptPlan& plan = request.plan();
  const absl::StatusOr<ModelAssets> assets =
      LoadModelAssets(plan.model_path(), plan.spec().dataset().chat_template(), plan.chat_template_path(), NeedsTemplate(plan.spec()));
  if (!assets.ok()) return AddProblem("model_name_or_path", std::string(assets.status().message()), v1::INVALID_SPEC, response);
  PrepareRequest prepare;
  prepare.spec = plan.spec();
  prepare.paths.assign(plan.dataset_paths().begin(), plan.dataset_paths().end());
  prepare.validation_path = plan.validation_path();
  prepare.tokenizer = assets->tokenizer.get();
  prepare.chat_template = assets->chat_template.get();
  prepare.bos_token = assets->bos_token;
  prepare.eos_token = assets->eos_token;
  prepare.pad_token = assets->pad_token;
  prepare.unk_token = assets->unk_token;
  prepare.add_bos = assets->tokenizer_adds_bos;
  prepare.add_eos = assets->tokenizer_adds_eos;
  prepare.submit_time_unix = plan.submit_time_unix();
  prepare.tokenizer_sha256 = assets->tokenizer_sha256;
  const absl::StatusOr<v1::PreviewDatasetResponse> preview = PreviewData(prepare, std::clamp(request.preview_samples(), 1, 100));
  if (!preview.ok()) return AddProblem("dataset", std::string(preview.status().message()), v1::INVALID_DATA, response);
  *response->mutable_preview() = *preview;
}

void Devices(v1::QueryResponse* response) {
  v1::Device& cpu = *response->add_devices();
  const DeviceMemory host = ReadDeviceMemory(at::kCPU);
  cpu.set_id("cpu");
  cpu.set_name("CPU");
  cpu.set_total_bytes(host.total);
  cpu.set_free_bytes(host.free);
  cpu.set_usable(true);
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return;
  for (int i = 0; i < count; ++i) {
    v1::Device& gpu = *response->add_devices();
    gpu.set_id(absl::StrCat("gpu", i));
    cudaDeviceProp properties;
    size_t free = 0, total = 0;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess || cudaSetDevice(i) != cudaSuccess || cudaMemGetInfo(&free, &total) != cudaSuccess) {
      gpu.set_reason(absl::StrCat("the driver does not answer: ", cudaGetErrorString(cudaGetLastError())));
      continue;
    }
    gpu.set_name(properties.name);
    gpu.set_total_bytes(total);
    gpu.set_free_bytes(free);
    gpu.set_compute_capability(absl::StrCat(properties.major, ".", properties.minor));
    int driver = 0;
    cudaDriverGetVersion(&driver);
    gpu.set_driver(absl::StrCat("CUDA ", driver / 1000, ".", driver % 1000 / 10));
    gpu.set_usable(true);
  }
}

}  // namespace

v1::QueryResponse AnswerQuery(const v1::QueryRequest& request) {
  v1::QueryResponse response;
  const absl::Status status = CatchAsStatus(v1::INTERNAL, [&] {
    switch (request.kind()) {
      case v1::QueryRequest::VALIDATE:
        Validate(request, &response);
        break;
      case v1::QueryRequest::INSPECT:
        InspectModel(request, &response);
        break;
      case v1::QueryRequest::PREVIEW:
        Preview(request, &response);
        break;
      case v1::QueryRequest::DEVICES:
        Devices(&response);
        break;
      default:
        AddProblem("kind", "unknown kind of query", v1::INTERNAL, &response);
    }
    return absl::OkStatus();
  });
  if (!status.ok()) AddProblem("", std::string(status.message()), FailureOf(status, v1::INTERNAL).reason(), &response);
  return response;
}

}  // namespace finetuned
