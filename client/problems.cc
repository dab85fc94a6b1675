#include "client/problems.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/format.h"

namespace finetuned {

int ValidateAndPrint(Context& context, const v1::JobSpec& spec, const std::string& file,
                     const std::map<std::string, int>& lines) {
  v1::ValidateJobRequest request;
  *request.mutable_spec() = spec;
  v1::ValidateJobResponse response;
  const grpc::Status status = context.connection.Call(&Connection::Stub::ValidateJob, request,
                                                      &response, /*timeout_seconds=*/600);
  if (!status.ok()) return context.Fail(status, file, lines);
  int errors = 0, warnings = 0;
  for (const v1::Problem& problem : response.problems()) {
    (problem.severity() == v1::Problem::WARNING ? warnings : errors)++;
  }
  if (context.out.machine()) {
    context.out.Message(response);
    return errors > 0 ? kUsage : kOk;
  }
  for (const v1::Problem& problem : response.problems()) {
    const auto line = lines.find(problem.field());
    const std::string text = ProblemText(problem, file, line == lines.end() ? 0 : line->second);
    problem.severity() == v1::Problem::WARNING ? context.out.Warn(text) : context.out.Error(text);
  }
  if (errors > 0) {
    context.out.Plain(
        absl::StrCat(errors, errors == 1 ? " error" : " errors", ", ", warnings, " warnings"));
    return kUsage;
  }
  if (response.has_estimate() && !context.out.quiet())
    PrintEstimate(context.out, response.estimate());
  context.out.Line(absl::StrCat("the job is valid",
                                warnings > 0 ? absl::StrCat(", ", warnings, " warnings") : ""));
  return kOk;
}

void PrintEstimate(const Output& out, const v1::Estimate& estimate) {
  std::vector<std::pair<uint64_t, std::string>> categories;
  for (const auto& [name, bytes] : estimate.memory().device_bytes())
    categories.emplace_back(bytes, name);
  std::sort(categories.rbegin(), categories.rend());
  std::vector<std::vector<std::string>> rows = {
      {absl::StrCat("memory on ",
                    estimate.device().empty() ? "the device" : Printable(estimate.device(), true)),
       ""}};
  for (const auto& [bytes, name] : categories)
    rows.push_back({absl::StrCat("  ", name), FormatBytes(bytes)});
  rows.push_back({"peak", FormatBytes(estimate.memory().device_peak_bytes())});
  if (estimate.memory().host_peak_bytes() > 0) {
    rows.push_back({"host memory", FormatBytes(estimate.memory().host_peak_bytes())});
  }
  if (estimate.memory().disk_bytes() > 0)
    rows.push_back({"disk", FormatBytes(estimate.memory().disk_bytes())});
  if (estimate.total_parameters() > 0) {
    rows.push_back(
        {"parameters",
         absl::StrFormat("%s, of which %s train (%.3f %%)",
                         FormatCount(static_cast<double>(estimate.total_parameters())),
                         FormatCount(static_cast<double>(estimate.trainable_parameters())),
                         100.0 * static_cast<double>(estimate.trainable_parameters()) /
                             static_cast<double>(estimate.total_parameters()))});
  }
  if (estimate.full_finetuning_bytes() > 0) {
    rows.push_back(
        {"training all weights would need", FormatBytes(estimate.full_finetuning_bytes())});
  }
  if (estimate.train_tokens() > 0) {
    rows.push_back({"tokens an epoch", FormatCount(static_cast<double>(estimate.train_tokens()))});
  }
  if (estimate.total_steps() > 0) rows.push_back({"steps", absl::StrCat(estimate.total_steps())});
  if (estimate.seconds() > 0) rows.push_back({"time", FormatSeconds(estimate.seconds())});
  if (estimate.predicted_start().seconds() > 0) {
    rows.push_back({"would start", FormatTime(estimate.predicted_start())});
  }
  if (estimate.predicted_finish().seconds() > 0) {
    rows.push_back({"would finish", FormatTime(estimate.predicted_finish())});
  }
  out.Table(rows);
}

}  // namespace finetuned
