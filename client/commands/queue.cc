#include <CLI/CLI.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/format.h"

namespace finetuned {
namespace {

struct Options {
  std::string job;
  std::optional<int> priority;
};

int Queue(Context& context, const Options& options) {
  if (options.job.empty() != !options.priority.has_value()) {
    return context.Usage("to move a job name both: finetune queue JOB --priority N");
  }
  if (options.priority) {
    v1::UpdateJobRequest update;
    update.set_job_id(options.job);
    update.set_priority(*options.priority);
    v1::Job job;
    const grpc::Status status = context.connection.Call(&Connection::Stub::UpdateJob, update, &job);
    if (!status.ok()) return context.Fail(status);
  }
  v1::GetQueueResponse response;
  const grpc::Status status =
      context.connection.Call(&Connection::Stub::GetQueue, v1::GetQueueRequest(), &response);
  if (!status.ok()) return context.Fail(status);
  if (context.out.machine()) {
    context.out.Message(response);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"#", "JOB", "STATE", "NAME", "PRIORITY", "WAITS FOR"}};
  for (const v1::QueueEntry& entry : response.entries()) {
    const bool waits = entry.pending_reason() != v1::PENDING_REASON_UNSPECIFIED;
    rows.push_back({entry.position() > 0 ? absl::StrCat(entry.position()) : "", entry.job_id(),
                    context.out.Paint(StateColor(entry.state()), StateText(entry.state())),
                    Truncate(Printable(entry.run_name(), true), 24), absl::StrCat(entry.priority()),
                    waits ? absl::StrCat(v1::PendingReason_Name(entry.pending_reason()), "  ",
                                         Truncate(Printable(entry.pending_detail(), true), 70))
                          : ""});
  }
  if (rows.size() == 1) {
    context.out.Note("nothing runs and nothing waits");
  } else {
    context.out.Table(rows);
  }
  return kOk;
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("job", options->job, "a job to move")->type_name("JOB");
  app.add_option("--priority", options->priority, "its new priority, higher first")->type_name("N");
  return [options](Context& context) { return Queue(context, *options); };
}

}  // namespace

extern const Command kQueue;
const Command kQueue = {"queue", "what runs and what waits, in order, and for what",
                        "finetune queue\nfinetune queue JOB --priority 10", &Setup};

}  // namespace finetuned
