#include "client/job_file.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <optional>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/transfer.h"
#include "client/yaml_spec.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace {

absl::StatusOr<std::string> ReadInput(const std::string& file) {
  if (file == "-") {
    return std::string(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>());
  }
  std::error_code error;
  if (std::filesystem::is_directory(file, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, " is a directory; a job file is expected"));
  }
  return ReadFile(file);
}

// Data files: uploaded or made absolute.
absl::Status ResolveData(Context& context, bool upload, std::string* path) {
  std::error_code error;
  if (upload && !absl::StartsWith(*path, "upload:") &&
      std::filesystem::is_regular_file(*path, error)) {
    FT_ASSIGN_OR_RETURN(*path, Upload(context, *path));
    return absl::OkStatus();
  }
  *path = LocalPath(*path);
  return absl::OkStatus();
}

absl::Status ResolvePaths(Context& context, bool upload, v1::JobSpec* spec) {
  if (!spec->model_name_or_path().empty()) {
    spec->set_model_name_or_path(LocalPath(spec->model_name_or_path()));
  }
  for (std::string& path : *spec->mutable_dataset()->mutable_path()) {
    FT_RETURN_IF_ERROR(ResolveData(context, upload, &path));
  }
  for (v1::DatasetSource& source : *spec->mutable_dataset()->mutable_sources()) {
    FT_RETURN_IF_ERROR(ResolveData(context, upload, source.mutable_path()));
  }
  if (spec->dataset().split().has_validation_path()) {
    FT_RETURN_IF_ERROR(ResolveData(
        context, upload, spec->mutable_dataset()->mutable_split()->mutable_validation_path()));
  }
  if (absl::EndsWith(spec->dataset().chat_template(), ".jinja")) {
    spec->mutable_dataset()->set_chat_template(LocalPath(spec->dataset().chat_template()));
  }
  if (spec->lora().has_resume_from_adapter()) {
    spec->mutable_lora()->set_resume_from_adapter(LocalPath(spec->lora().resume_from_adapter()));
  }
  if (spec->source().has_adapter_path()) {
    spec->mutable_source()->set_adapter_path(LocalPath(spec->source().adapter_path()));
  }
  return absl::OkStatus();
}

}  // namespace

void AddJobOptions(CLI::App& app, JobInput* input) {
  app.add_option("file", input->file,
                 "job file (YAML); - for standard input; may be left out with --set")
      ->type_name("FILE");
  app.add_option(
         "--set", input->settings,
         "change a key: learning_rate=1e-4, lora.target_modules=[q_proj,v_proj]; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_flag("--upload", input->upload,
               "send the job's data files to the server instead of naming their paths");
}

std::optional<LoadedJob> LoadJob(Context& context, const JobInput& input, int* code) {
  LoadedJob job;
  *code = kUsage;
  if (input.file.empty() && input.settings.empty()) {
    context.out.Error("a job file is missing; name one, or set keys with --set key=value");
    return std::nullopt;
  }
  bool errors = false;
  if (!input.file.empty()) {
    const std::string name = input.file == "-" ? "standard input" : input.file;
    const absl::StatusOr<std::string> text = ReadInput(input.file);
    if (!text.ok()) {
      context.out.Error(
          absl::StrCat("cannot read the job file: ", std::string(text.status().message())));
      return std::nullopt;
    }
    absl::StatusOr<JobFile> file = ParseJobFile(*text);
    if (!file.ok()) {
      context.out.Error(absl::StrCat(name, ": ", std::string(file.status().message())));
      return std::nullopt;
    }
    for (const MappingProblem& found : file->problems) {
      const std::string shown = ProblemText(found.problem, name, found.line);
      if (found.problem.severity() == v1::Problem::WARNING) {
        context.out.Warn(shown);
      } else {
        context.out.Error(shown);
        errors = true;
      }
    }
    job.spec = std::move(file->spec);
    job.lines = std::move(file->lines);
  }
  for (const std::string& setting : input.settings) {
    if (const absl::Status status = ApplySetting(context.out, setting, &job.spec); !status.ok()) {
      context.out.Error(std::string(status.message()));
      errors = true;
    } else {
      const std::string key = setting.substr(0, setting.find('='));
      const KeyInfo* info = FindKey(key) != nullptr ? FindKey(key) : FindKeyByLastName(key);
      if (info != nullptr) job.lines.erase(info->path);  // the value is no longer the file's
    }
  }
  if (errors) return std::nullopt;
  if (const absl::Status status = ResolvePaths(context, input.upload, &job.spec); !status.ok()) {
    *code = context.Fail(status);
    return std::nullopt;
  }
  return job;
}

absl::Status ApplySetting(const Output& out, const std::string& setting, v1::JobSpec* spec) {
  const size_t equals = setting.find('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(absl::StrCat("--set ", setting, ": write key=value"));
  }
  const std::string key = setting.substr(0, equals);
  if (const auto warning = WithoutEffect(key)) out.Warn(*warning);
  const absl::Status status = SetKey(spec, key, setting.substr(equals + 1));
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat("--set ", std::string(status.message())));
}

std::string NewRequestId() {
  std::random_device random;
  uint32_t words[4];
  for (uint32_t& word : words) word = random();
  words[1] = (words[1] & 0xffff0fff) | 0x4000;
  words[2] = (words[2] & 0x3fffffff) | 0x80000000;
  return absl::StrFormat("%08x-%04x-%04x-%04x-%04x%08x", words[0], words[1] >> 16,
                         words[1] & 0xffff, words[2] >> 16, words[2] & 0xffff, words[3]);
}

std::string LocalPath(const std::string& path) {
  if (path.empty() || path[0] == '/' || absl::StartsWith(path, "upload:")) return path;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return path;
  // Links stay: the server judges them against its roots.
  return std::filesystem::absolute(path, error).lexically_normal().string();
}

}  // namespace finetuned
