#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli.h"
#include "client/format.h"

namespace finetuned {
namespace {

int Checkpoints(Context& context, const std::string& id) {
  v1::ListCheckpointsRequest request;
  request.set_job_id(id);
  v1::ListCheckpointsResponse response;
  const grpc::Status status =
      context.connection.Call(&Connection::Stub::ListCheckpoints, request, &response);
  if (!status.ok()) return context.Fail(status);
  if (context.out.machine()) {
    context.out.Message(response);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"STEP", "EPOCH", "EVAL LOSS", "BEST", "SIZE", "SAVED", "WHY", "VERIFIED"}};
  for (const v1::Checkpoint& checkpoint : response.checkpoints()) {
    uint64_t bytes = 0;
    for (const auto& [part, size] : checkpoint.bytes_by_part()) bytes += size;
    rows.push_back({absl::StrCat(checkpoint.step()), absl::StrFormat("%.2f", checkpoint.epoch()),
                    checkpoint.has_eval_loss() ? FormatLoss(checkpoint.eval_loss()) : "–",
                    checkpoint.is_best() ? "best" : "", FormatBytes(bytes),
                    FormatTime(checkpoint.time()), Printable(checkpoint.reason(), true),
                    checkpoint.verified() ? "yes" : "no"});
  }
  if (rows.size() == 1) {
    context.out.Note("no checkpoints");
  } else {
    context.out.Table(rows);
  }
  return kOk;
}

Run Setup(CLI::App& app) {
  auto id = std::make_shared<std::string>();
  app.add_option("job", *id, "job id")->required()->type_name("JOB");
  return [id](Context& context) { return Checkpoints(context, *id); };
}

}  // namespace

extern const Command kCheckpoints;
const Command kCheckpoints = {"checkpoints", "a job's checkpoints: step, loss, which is the best",
                              "finetune checkpoints JOB", &Setup};

}  // namespace finetuned
