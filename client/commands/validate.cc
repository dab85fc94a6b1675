#include <CLI/CLI.hpp>

#include "client/cli.h"
#include "client/job_file.h"
#include "client/problems.h"
#include "proto/spec/spec.h"
#include "client/yaml_spec.h"

namespace finetuned {
namespace {

struct Options {
  JobInput input;
  bool resolved = false;
};

int Validate(Context& context, const Options& options) {
  int code = kOk;
  const std::optional<LoadedJob> job = LoadJob(context, options.input, &code);
  if (!job) return code;
  if (options.resolved) {
    context.out.Print(SpecToYaml(ResolveDefaults(job->spec)));
    return kOk;
  }
  return ValidateAndPrint(context, job->spec, options.input.file, job->lines);
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  AddJobOptions(app, &options->input);
  app.add_flag("--resolved", options->resolved,
               "print the job with every default filled in, without asking a server");
  return [options](Context& context) { return Validate(context, *options); };
}

}  // namespace

extern const Command kValidate;
const Command kValidate = {
    "validate", "check a job without submitting it: all problems at once, and an estimate",
    "finetune validate job.yaml\nfinetune validate job.yaml --set lora.r=64", &Setup};

}  // namespace finetuned
