#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/format.h"
#include "client/job_file.h"
#include "client/problems.h"
#include "proto/spec/spec.h"

namespace finetuned {
namespace {

struct Options {
  JobInput input;
  std::string sweep;
};

int Estimate(Context& context, const Options& options) {
  int code = kOk;
  const std::optional<LoadedJob> job = LoadJob(context, options.input, &code);
  if (!job) return code;
  v1::EstimateJobRequest request;
  *request.mutable_spec() = job->spec;
  request.set_sweep(options.sweep);
  v1::EstimateJobResponse response;
  const grpc::Status status =
      context.connection.Call(&Connection::Stub::EstimateJob, request, &response, 600);
  if (!status.ok()) return context.Fail(status, options.input.file, job->lines);
  bool errors = false;
  for (const v1::EstimateRow& row : response.rows())
    errors = errors || HasErrors({row.problems().begin(), row.problems().end()});
  if (context.out.machine()) {
    context.out.Message(response);
    return errors ? kUsage : kOk;
  }
  std::vector<std::vector<std::string>> table = {
      {"setting", "peak memory", "trainable", "steps", "time"}};
  for (const v1::EstimateRow& row : response.rows()) {
    for (const v1::Problem& problem : row.problems()) {
      const auto line = job->lines.find(problem.field());
      const std::string text = absl::StrCat(
          row.setting().empty() ? "" : absl::StrCat("with ", row.setting(), ": "),
          ProblemText(problem, options.input.file, line == job->lines.end() ? 0 : line->second));
      problem.severity() == v1::Problem::WARNING ? context.out.Warn(text) : context.out.Error(text);
    }
    if (!row.has_estimate()) continue;
    if (options.sweep.empty()) {
      PrintEstimate(context.out, row.estimate());
      continue;
    }
    table.push_back({row.setting().empty() ? "(as it stands)" : row.setting(),
                     FormatBytes(row.estimate().memory().device_peak_bytes()),
                     FormatCount(static_cast<double>(row.estimate().trainable_parameters())),
                     absl::StrCat(row.estimate().total_steps()),
                     FormatSeconds(row.estimate().seconds())});
  }
  if (table.size() > 1) context.out.Table(table);
  return errors ? kUsage : kOk;
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  AddJobOptions(app, &options->input);
  app.add_option("--sweep", options->sweep, "one key and its values: a row for each")
      ->type_name("KEY=A,B,C");
  return [options](Context& context) { return Estimate(context, *options); };
}

}  // namespace

extern const Command kEstimate;
const Command kEstimate = {
    "estimate", "memory, steps and time of a job before it runs",
    "finetune estimate job.yaml\nfinetune estimate job.yaml --sweep r=8,16,32", &Setup};

}  // namespace finetuned
