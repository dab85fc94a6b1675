#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli.h"

namespace finetuned {
namespace {

Run Setup(CLI::App& app) {
  auto ids = std::make_shared<std::vector<std::string>>();
  app.add_option("job", *ids, "job id, or several")->required()->type_name("JOB");
  return [ids](Context& context) {
    int code = kOk;
    for (const std::string& id : *ids) {
      v1::CancelJobRequest request;
      request.set_job_id(id);
      v1::Job job;
      const grpc::Status status =
          context.connection.Call(&Connection::Stub::CancelJob, request, &job);
      if (!status.ok()) {
        code = context.Fail(status);
        continue;
      }
      if (context.out.machine()) {
        context.out.Message(job);
      } else {
        context.out.Note(absl::StrCat("job ", id, " is ", StateText(job.state())));
      }
    }
    return code;
  };
}

}  // namespace

extern const Command kCancel;
const Command kCancel = {"cancel", "end a job; what it has made so far stays",
                         "finetune cancel JOB", &Setup};

}  // namespace finetuned
