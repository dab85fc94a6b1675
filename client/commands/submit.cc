#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/create.h"
#include "client/job_file.h"
#include "client/problems.h"

namespace finetuned {
namespace {

struct Options {
  JobInput input;
  bool watch = false;
  bool dry_run = false;
  v1::CreateJobRequest request;
  std::vector<std::string> labels;
  std::vector<std::string> after;
  int priority = 0;
  bool hold = false;
};

int Submit(Context& context, Options& options) {
  int code = kOk;
  std::optional<LoadedJob> job = LoadJob(context, options.input, &code);
  if (!job) return code;
  if (options.dry_run) return ValidateAndPrint(context, job->spec, options.input.file, job->lines);
  v1::CreateJobRequest& request = options.request;
  for (const std::string& label : options.labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0) {
      return context.Usage(absl::StrCat("--label ", label, ": write key=value"));
    }
    (*request.mutable_labels())[label.substr(0, equals)] = label.substr(equals + 1);
  }
  for (const std::string& id : options.after) request.add_after(id);
  request.set_priority(options.priority);
  request.set_held(options.hold);
  *request.mutable_spec() = std::move(job->spec);
  return CreateAndFollow(context, &Connection::Stub::CreateJob, request,
                         options.watch ? Afterwards::kWatch : Afterwards::kValidated,
                         options.input.file, job->lines);
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  AddJobOptions(app, &options->input);
  app.add_flag("-w,--watch", options->watch, "follow the job to its end");
  app.add_flag("--dry-run", options->dry_run, "check and estimate only; nothing is submitted");
  app.add_option("--priority", options->priority, "higher runs first, -1000…1000; default 0")
      ->type_name("N");
  app.add_option("--label", options->labels, "label of the job; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_option("--after", options->after, "start when this job has succeeded; repeatable")
      ->type_name("JOB")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_flag("--hold", options->hold, "do not start before `finetune resume JOB`");
  app.add_option("--request-id", *options->request.mutable_request_id(),
                 "the same id gives the same job, however often it is sent; default: a new one")
      ->type_name("UUID");
  return [options](Context& context) { return Submit(context, *options); };
}

}  // namespace

extern const Command kSubmit;
const Command kSubmit = {"submit", "submit a job: check it, queue it, and with --watch follow it",
                         "finetune submit job.yaml --watch\n"
                         "finetune submit job.yaml --set learning_rate=1e-4 --set lora.r=8\n"
                         "id=$(finetune submit job.yaml) && finetune watch \"$id\"",
                         &Setup};

}  // namespace finetuned
