#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli.h"

namespace finetuned {
namespace {

int Resume(Context& context, const std::string& id) {
  v1::GetJobRequest get;
  get.set_job_id(id);
  v1::Job job;
  grpc::Status status = context.connection.Call(&Connection::Stub::GetJob, get, &job);
  if (!status.ok()) return context.Fail(status);
  if (job.held()) {  // submitted with --hold: to let it go is an update of the job
    v1::UpdateJobRequest update;
    update.set_job_id(id);
    update.set_held(false);
    status = context.connection.Call(&Connection::Stub::UpdateJob, update, &job);
  } else {
    v1::ResumeJobRequest request;
    request.set_job_id(id);
    status = context.connection.Call(&Connection::Stub::ResumeJob, request, &job);
  }
  if (!status.ok()) return context.Fail(status);
  if (context.out.machine()) {
    context.out.Message(job);
  } else {
    context.out.Note(absl::StrCat("job ", id, " is ", StateText(job.state())));
  }
  return kOk;
}

Run Setup(CLI::App& app) {
  auto id = std::make_shared<std::string>();
  app.add_option("job", *id, "job id")->required()->type_name("JOB");
  return [id](Context& context) { return Resume(context, *id); };
}

}  // namespace

extern const Command kResume;
const Command kResume = {"resume", "go on with a paused job, or release one submitted with --hold",
                         "finetune resume JOB", &Setup};

}  // namespace finetuned
