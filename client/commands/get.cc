#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/event_text.h"
#include "client/format.h"
#include "client/result.h"
#include "client/yaml_spec.h"

namespace finetuned {
namespace {

struct Options {
  std::string job;
  bool spec = false;
};

void PrintJob(const Output& out, const v1::Job& job) {
  std::vector<std::vector<std::string>> rows = {
      {"job", job.job_id()}, {"state", out.Paint(StateColor(job.state()), StateText(job.state()))}};
  const auto row = [&](const char* name, std::string text) {
    if (!text.empty() && text != "–") rows.push_back({name, Printable(text, true)});
  };
  row("name", job.submitted_spec().run_name());
  if (job.stage() != v1::STAGE_UNSPECIFIED) row("stage", StageText(job.stage()));
  if (job.state() == v1::QUEUED) {
    row("waits for",
        absl::StrCat(v1::PendingReason_Name(job.pending_reason()), " ", job.pending_detail()));
  }
  row("model", job.submitted_spec().model_name_or_path());
  for (const std::string& path : job.submitted_spec().dataset().path()) row("data", path);
  row("owner", job.owner());
  if (job.priority() != 0) row("priority", absl::StrCat(job.priority()));
  for (const auto& [key, value] : job.labels()) row("label", absl::StrCat(key, "=", value));
  for (const std::string& id : job.after()) row("after", id);
  row("created", FormatTime(job.create_time()));
  row("started", FormatTime(job.start_time()));
  row("ended", FormatTime(job.end_time()));
  if (job.attempt() > 1) row("attempt", absl::StrCat(job.attempt()));
  if (!IsFinal(job.state())) {
    if (job.metrics().step() > 0) row("training", MetricsText(job.metrics()));
    if (job.progress().stage() != v1::STAGE_UNSPECIFIED)
      row("progress", ProgressText(job.progress()));
    if (job.estimate().memory().device_peak_bytes() > 0) {
      row("planned memory", FormatBytes(job.estimate().memory().device_peak_bytes()));
    }
  }
  row("events", absl::StrCat(job.last_seq()));
  out.Table(rows);
}

int Get(Context& context, const Options& options) {
  v1::GetJobRequest request;
  request.set_job_id(options.job);
  v1::Job job;
  const grpc::Status status = context.connection.Call(&Connection::Stub::GetJob, request, &job);
  if (!status.ok()) return context.Fail(status);
  if (options.spec) {
    const v1::JobSpec& spec = job.has_resolved_spec() ? job.resolved_spec() : job.submitted_spec();
    if (context.out.json()) {
      context.out.Message(spec);
    } else {
      context.out.Print(SpecToYaml(spec));
    }
    return kOk;
  }
  if (context.out.machine()) {
    context.out.Message(job);
    return kOk;
  }
  PrintJob(context.out, job);
  if (job.state() == v1::SUCCEEDED || job.state() == v1::FAILED) PrintEnd(context.out, job);
  return kOk;
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("job", options->job, "job id")->required()->type_name("JOB");
  app.add_flag("--spec", options->spec,
               "the job file with every default filled in; submitting it gives an equal job");
  return [options](Context& context) { return Get(context, *options); };
}

}  // namespace

extern const Command kGet;
const Command kGet = {
    "get", "a job's state, progress and result; with --spec its job file",
    "finetune get JOB\nfinetune get JOB --spec > again.yaml\nfinetune get JOB --output json",
    &Setup};

}  // namespace finetuned
