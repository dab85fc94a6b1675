#include "client/source_options.h"

#include <CLI/CLI.hpp>

#include "client/job_file.h"

namespace finetuned {

void AddSourceOptions(CLI::App& app, SourceOptions* options) {
  app.add_option("job", options->job, "a job whose adapter is taken")->type_name("JOB");
  app.add_option("--checkpoint", options->checkpoint,
                 "this checkpoint of the job instead of its final adapter")
      ->type_name("STEP");
  app.add_option("--adapter", options->adapter, "a PEFT directory instead of a job; needs --model")
      ->type_name("DIR");
  app.add_option("--model", options->model, "base model")->type_name("MODEL");
}

void FillSource(const SourceOptions& options, const char* kind, v1::JobSpec* spec) {
  spec->set_kind(kind);
  if (!options.job.empty()) spec->mutable_source()->set_job_id(options.job);
  if (options.checkpoint >= 0) spec->mutable_source()->set_checkpoint_step(options.checkpoint);
  if (!options.adapter.empty())
    spec->mutable_source()->set_adapter_path(LocalPath(options.adapter));
  if (!options.model.empty()) spec->set_model_name_or_path(LocalPath(options.model));
}

}  // namespace finetuned
