#include <CLI/CLI.hpp>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/cli.h"
#include "client/create.h"
#include "client/job_file.h"

namespace finetuned {
namespace {

struct Options {
  std::string job;
  std::string from_stage;
  std::optional<int64_t> from_checkpoint;
  std::vector<std::string> settings;
  bool watch = false;
};

int Rerun(Context& context, const Options& options) {
  v1::RerunJobRequest request;
  request.set_job_id(options.job);
  if (!options.from_stage.empty()) {
    v1::Stage stage;
    const std::string name =
        absl::StrReplaceAll(absl::AsciiStrToUpper(options.from_stage), {{"-", "_"}, {" ", "_"}});
    if (!v1::Stage_Parse(name, &stage) || stage == v1::STAGE_UNSPECIFIED) {
      return context.Usage(
          absl::StrCat("--from-stage ", options.from_stage,
                       ": one of preparing_data, loading_model, injecting_adapters, "
                       "evaluating_base, training, evaluating, merging, exporting"));
    }
    request.set_from_stage(stage);
  }
  if (options.from_checkpoint) request.set_from_checkpoint(*options.from_checkpoint);
  for (const std::string& setting : options.settings) {
    v1::JobSpec scratch;  // a mistyped key is told here, without a journey
    if (const absl::Status status = ApplySetting(context.out, setting, &scratch); !status.ok())
      return context.Fail(status);
    request.add_overrides(setting);
  }
  v1::Job job;
  const grpc::Status status = context.connection.Call(&Connection::Stub::RerunJob, request, &job);
  if (!status.ok()) return context.Fail(status);
  return Follow(context, job, options.watch ? Afterwards::kWatch : Afterwards::kValidated);
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("job", options->job, "job id")->required()->type_name("JOB");
  app.add_option("--from-stage", options->from_stage,
                 "first stage to do again; default: the first that is not done")
      ->type_name("STAGE");
  app.add_option("--from-checkpoint", options->from_checkpoint,
                 "train on from this step (finetune checkpoints JOB)")
      ->type_name("STEP");
  app.add_option("--set", options->settings,
                 "change a key that finished stages do not depend on; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_flag("-w,--watch", options->watch, "follow it to its end");
  return [options](Context& context) { return Rerun(context, *options); };
}

}  // namespace

extern const Command kRerun;
const Command kRerun = {"rerun", "go on with a job that has ended, from a stage or a checkpoint",
                        "finetune rerun JOB --watch\nfinetune rerun JOB --from-stage exporting "
                        "--set export.gguf_types=[f16]\n"
                        "finetune rerun JOB --from-checkpoint 200 --set learning_rate=1e-4",
                        &Setup};

}  // namespace finetuned
