#include "server/supervisor/spec_check.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "proto/spec/spec.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;

v1::Problem Error(v1::FailureReason reason, std::string field, std::string message,
                  std::string allowed) {
  v1::Problem problem;
  problem.set_severity(v1::Problem::ERROR);
  problem.set_reason(reason);
  problem.set_field(std::move(field));
  problem.set_message(std::move(message));
  problem.set_allowed(std::move(allowed));
  return problem;
}

// Copies every field that `overlay` sets; a list or map replaces the one below it instead of
// growing it.
void Overlay(const google::protobuf::Message& overlay, google::protobuf::Message* base) {
  using google::protobuf::FieldDescriptor;
  const google::protobuf::Reflection* from = overlay.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  from->ListFields(overlay, &fields);
  std::vector<const FieldDescriptor*> plain;
  for (const FieldDescriptor* field : fields) {
    if (!field->is_repeated() && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Overlay(from->GetMessage(overlay, field), base->GetReflection()->MutableMessage(base, field));
    } else {
      base->GetReflection()->ClearField(base, field);
      plain.push_back(field);
    }
  }
  // The plain fields by a merge of a copy that holds nothing else.
  std::unique_ptr<google::protobuf::Message> copy(overlay.New());
  copy->CopyFrom(overlay);
  for (const FieldDescriptor* field : fields) {
    if (std::find(plain.begin(), plain.end(), field) == plain.end()) {
      copy->GetReflection()->ClearField(copy.get(), field);
    }
  }
  base->MergeFrom(*copy);
}

// Keys a later kind does not set come from the job whose adapter it takes.
v1::JobSpec TakeOver(const v1::JobSpec& submitted, const v1::JobSpec& source) {
  v1::JobSpec spec = source;
  spec.clear_run_name();
  spec.clear_max_runtime();
  spec.clear_source();
  Overlay(submitted, &spec);
  return spec;
}

// Data files are read by a job that trains.
bool NeedsData(const v1::JobSpec& spec) { return spec.kind().empty() || spec.kind() == "finetune"; }

class PathChecker {
 public:
  explicit PathChecker(SpecCheck* check) : check_(check) {}

  std::string Resolve(const ResolvePath& resolve, const std::string& field, const std::string& path,
                      v1::FailureReason missing) {
    auto real = resolve(path);
    if (real.ok()) return *real;
    check_->problems.push_back(Error(absl::IsNotFound(real.status()) ? missing : v1::INVALID_SPEC,
                                     field, std::string(real.status().message()), ""));
    return "";
  }

 private:
  SpecCheck* const check_;
};

void CheckDevices(const DeviceFacts& devices, SpecCheck* check) {
  v1::IntOrAuto* wanted = check->resolved.mutable_devices();
  const bool written = check->effective.has_devices();
  if (devices.has_gpu) {
    if (wanted->auto_()) wanted->set_value(1);
    return;
  }
  if (written && wanted->value() > 0) {
    check->problems.push_back(
        Error(v1::INVALID_SPEC, "devices",
              absl::StrCat("devices is ", wanted->value(), ", but this server has no usable GPU",
                           devices.gpu_problem.empty() ? "" : ": ", devices.gpu_problem),
              "0 (the CPU) or auto"));
    return;
  }
  if (!written) {
    v1::Problem warning =
        Error(v1::FAILURE_REASON_UNSPECIFIED, "devices",
              absl::StrCat("this server has no usable GPU", devices.gpu_problem.empty() ? "" : ": ",
                           devices.gpu_problem, "; the job runs on the CPU"),
              "devices: 0 says so and silences this");
    warning.set_severity(v1::Problem::WARNING);
    check->problems.push_back(std::move(warning));
  }
  wanted->set_value(0);
}

void CheckDataPaths(const PathLookup& paths, SpecCheck* check) {
  PathChecker checker(check);
  const v1::JobSpec& spec = check->resolved;
  v1::AttemptPlan& plan = check->plan;
  for (const std::string& path : spec.dataset().path()) {
    plan.add_dataset_paths(checker.Resolve(paths.data, "dataset.path", path, v1::INVALID_DATA));
  }
  for (int i = 0; i < spec.dataset().sources_size(); ++i) {
    plan.add_dataset_paths(checker.Resolve(paths.data,
                                           absl::StrCat("dataset.sources[", i, "].path"),
                                           spec.dataset().sources(i).path(), v1::INVALID_DATA));
  }
  if (const std::string& path = spec.dataset().split().validation_path(); !path.empty()) {
    plan.set_validation_path(
        checker.Resolve(paths.data, "dataset.split.validation_path", path, v1::INVALID_DATA));
  }
}

void CheckPaths(const PathLookup& paths, SpecCheck* check) {
  PathChecker checker(check);
  const v1::JobSpec& spec = check->resolved;
  v1::AttemptPlan& plan = check->plan;
  if (!spec.model_name_or_path().empty()) {
    plan.set_model_path(checker.Resolve(paths.model, "model_name_or_path",
                                        spec.model_name_or_path(), v1::MODEL_NOT_FOUND));
  }
  if (NeedsData(spec)) CheckDataPaths(paths, check);
  if (const std::string& name = spec.dataset().chat_template();
      absl::EndsWith(name, ".jinja") || absl::StartsWith(name, "upload:")) {
    plan.set_chat_template_path(
        checker.Resolve(paths.data, "dataset.chat_template", name, v1::INVALID_SPEC));
  }
  if (const std::string& path = spec.lora().resume_from_adapter(); !path.empty()) {
    plan.set_adapter_path(
        checker.Resolve(paths.model, "lora.resume_from_adapter", path, v1::INVALID_SPEC));
  }
  if (const std::string& path = spec.source().adapter_path(); !path.empty()) {
    plan.set_adapter_path(
        checker.Resolve(paths.model, "source.adapter_path", path, v1::INVALID_SPEC));
  }
}

}  // namespace

SpecCheck CheckSpec(const v1::JobSpec& submitted, const std::optional<SourceJob>& source,
                    const PathLookup& paths, const DeviceFacts& devices) {
  SpecCheck check;
  check.effective = submitted;
  if (source) {
    check.effective = TakeOver(submitted, source->job.resolved_spec());
    check.plan.set_source_job_dir(source->job_dir);
  }
  check.problems = ValidateSpec(check.effective);
  check.resolved = ResolveDefaults(check.effective);
  CheckDevices(devices, &check);
  CheckPaths(paths, &check);
  *check.plan.mutable_spec() = check.resolved;
  check.plan.set_device(check.resolved.devices().value() > 0 ? "cuda:0" : "cpu");
  check.plan.set_from_checkpoint_step(-1);
  return check;
}

bool HasAdapter(const std::string& job_dir) {
  std::error_code error;
  if (fs::exists(job_dir + "/artifacts/adapter/adapter_model.safetensors", error)) return true;
  for (const fs::directory_entry& entry : fs::directory_iterator(job_dir + "/checkpoints", error)) {
    if (fs::exists(entry.path() / "adapter/adapter_model.safetensors", error)) return true;
  }
  return false;
}

bool OverrideAllowed(std::string_view key, v1::Stage from_stage) {
  if (from_stage == v1::PREPARING_DATA) return true;
  const absl::string_view name(key.data(), key.size());
  if (absl::StartsWith(name, "export.") || absl::StartsWith(name, "evaluation.")) return true;
  static constexpr std::string_view kAlways[] = {
      "num_train_epochs", "num_epochs", "epochs",        "max_steps", "max_runtime",
      "eval_steps",       "save_steps", "logging_steps", "run_name",  "save_total_limit"};
  return std::find(std::begin(kAlways), std::end(kAlways), key) != std::end(kAlways);
}

}  // namespace finetuned
