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
      v1::DeleteJobRequest request;
      request.set_job_id(id);
      v1::DeleteJobResponse response;
      const grpc::Status status =
          context.connection.Call(&Connection::Stub::DeleteJob, request, &response);
      if (status.ok()) {
        context.out.Note(absl::StrCat("job ", id, " deleted"));
      } else {
        code = context.Fail(status);
      }
    }
    return code;
  };
}

}  // namespace

extern const Command kDelete;
const Command kDelete = {"delete",
                         "remove a job that has ended, with its events, checkpoints and artifacts",
                         "finetune delete JOB", &Setup};

}  // namespace finetuned
