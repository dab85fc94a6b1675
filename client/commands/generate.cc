#include <CLI/CLI.hpp>
#include <optional>
#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/create.h"
#include "client/job_file.h"
#include "client/source_options.h"

namespace finetuned {
namespace {

struct Options {
  SourceOptions source;
  std::vector<std::string> prompts;
  std::optional<int64_t> max_new_tokens;
  std::optional<double> temperature;
  std::vector<std::string> settings;
};

int Generate(Context& context, const Options& options) {
  v1::CreateJobRequest request;
  v1::JobSpec* spec = request.mutable_spec();
  FillSource(options.source, "generate", spec);
  for (const std::string& prompt : options.prompts) {
    if (prompt != "-") {
      spec->mutable_source()->add_prompts(prompt);
      continue;
    }
    std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
    while (!text.empty() && text.back() == '\n') text.pop_back();
    spec->mutable_source()->add_prompts(text);
  }
  v1::Generation* generation = spec->mutable_evaluation()->mutable_generation();
  if (options.max_new_tokens) generation->set_max_new_tokens(*options.max_new_tokens);
  if (options.temperature) generation->set_temperature(*options.temperature);
  for (const std::string& setting : options.settings) {
    if (const absl::Status status = ApplySetting(context.out, setting, spec); !status.ok())
      return context.Fail(status);
  }
  return CreateAndFollow(context, &Connection::Stub::Generate, request, Afterwards::kAnswer);
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  AddSourceOptions(app, &options->source);
  app.add_option("-p,--prompt", options->prompts,
                 "what to answer; - reads standard input; repeatable")
      ->required()
      ->type_name("TEXT")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_option("--max-new-tokens", options->max_new_tokens, "longest answer; default 512")
      ->type_name("N");
  app.add_option("--temperature", options->temperature, "0 (default) is greedy")->type_name("T");
  app.add_option("--set", options->settings, "another key, as in a job; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  return [options](Context& context) { return Generate(context, *options); };
}

}  // namespace

extern const Command kGenerate;
const Command kGenerate = {"generate", "let a trained (or base) model answer prompts",
                           "finetune generate JOB --prompt \"What is a queue?\"\n"
                           "finetune generate --model my-base --prompt - < question.txt",
                           &Setup};

}  // namespace finetuned
