#include "client/watch.h"

#include <CLI/CLI.hpp>

#include "client/cli.h"

namespace finetuned {
namespace {

struct Options {
  std::string job;
  int64_t after_seq = 0;
};

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("job", options->job, "job id")->required()->type_name("JOB");
  app.add_option("--after-seq", options->after_seq,
                 "start after this event; default 0, the whole log")
      ->type_name("SEQ");
  return [options](Context& context) { return Watch(context, options->job, options->after_seq); };
}

}  // namespace

extern const Command kWatch;
const Command kWatch = {
    "watch", "follow a job to its end: live progress, then the result (exit 1 if it failed)",
    "finetune watch JOB\nfinetune watch JOB --after-seq 120\nfinetune watch JOB --output json | jq "
    ".metrics.loss",
    &Setup};

}  // namespace finetuned
