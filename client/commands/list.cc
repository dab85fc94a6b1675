#include <CLI/CLI.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/format.h"

namespace finetuned {
namespace {

struct Options {
  std::vector<std::string> states;
  std::vector<std::string> labels;
  std::string order = "create_time desc";
  int limit = 50;
};

std::string LossOf(const v1::Job& job) {
  if (job.result().best_eval_loss() > 0) return FormatLoss(job.result().best_eval_loss());
  return job.metrics().step() > 0 ? FormatLoss(job.metrics().loss()) : "";
}

std::string Detail(const v1::Job& job) {
  switch (job.state()) {
    case v1::RUNNING:
      return StageText(job.stage());
    case v1::QUEUED:
      return job.pending_detail();
    case v1::FAILED:
      return absl::StrCat(v1::FailureReason_Name(job.failure().reason()), ": ",
                          job.failure().message());
    default:
      return job.result().verdict();
  }
}

int List(Context& context, const Options& options) {
  v1::ListJobsRequest request;
  for (const std::string& name : options.states) {
    v1::JobState state;
    if (!v1::JobState_Parse(absl::AsciiStrToUpper(name), &state)) {
      return context.Usage(
          absl::StrCat("--state ", name,
                       ": one of validating, queued, starting, running, pausing, paused, "
                       "cancelling, cancelled, succeeded, failed"));
    }
    request.add_states(state);
  }
  for (const std::string& label : options.labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos)
      return context.Usage(absl::StrCat("--label ", label, ": write key=value"));
    (*request.mutable_labels())[label.substr(0, equals)] = label.substr(equals + 1);
  }
  request.set_order_by(options.order);
  v1::ListJobsResponse all;
  while (all.jobs_size() < options.limit) {
    request.set_page_size(std::min(1000, options.limit - all.jobs_size()));
    v1::ListJobsResponse page;
    const grpc::Status status =
        context.connection.Call(&Connection::Stub::ListJobs, request, &page);
    if (!status.ok()) return context.Fail(status);
    all.mutable_jobs()->MergeFrom(page.jobs());
    all.set_next_page_token(page.next_page_token());
    request.set_page_token(page.next_page_token());
    if (page.next_page_token().empty()) break;
  }
  if (context.out.machine()) {
    context.out.Message(all);
    return kOk;
  }
  if (context.out.quiet()) {
    for (const v1::Job& job : all.jobs()) context.out.Line(job.job_id());
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"JOB", "STATE", "NAME", "KIND", "CREATED", "LOSS", "DETAIL"}};
  for (const v1::Job& job : all.jobs()) {
    const std::string& kind = job.submitted_spec().kind();
    rows.push_back({job.job_id(),
                    context.out.Paint(StateColor(job.state()), StateText(job.state())),
                    Truncate(Printable(job.submitted_spec().run_name(), true), 24),
                    kind.empty() ? "finetune" : kind, FormatTime(job.create_time()), LossOf(job),
                    Truncate(Printable(Detail(job), true), 60)});
  }
  if (rows.size() == 1) {
    context.out.Note("no jobs");
    return kOk;
  }
  context.out.Table(rows);
  if (!all.next_page_token().empty())
    context.out.Note(absl::StrCat("there are more; see them with --limit ", 10 * options.limit));
  return kOk;
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("--state", options->states, "only jobs in this state; repeatable")
      ->type_name("STATE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_option("--label", options->labels, "only jobs with this label; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_option("--order", options->order,
                 "\"create_time desc\" (default), create_time, \"priority desc\" or priority")
      ->type_name("ORDER");
  app.add_option("-n,--limit", options->limit, "jobs shown at most; default 50")
      ->check(CLI::Range(1, 100000))
      ->type_name("N");
  return [options](Context& context) { return List(context, *options); };
}

}  // namespace

extern const Command kList;
const Command kList = {"list", "jobs, newest first; with --quiet their ids alone",
                       "finetune list\nfinetune list --state running --state queued\nfinetune list "
                       "--label team=search --output json",
                       &Setup};

}  // namespace finetuned
