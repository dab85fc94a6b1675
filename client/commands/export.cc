#include <CLI/CLI.hpp>

#include "client/cli.h"
#include "client/create.h"
#include "client/job_file.h"
#include "client/source_options.h"

namespace finetuned {
namespace {

struct Options {
  SourceOptions source;
  std::string formats;
  std::string gguf_types;
  std::vector<std::string> settings;
};

int Export(Context& context, const Options& options) {
  v1::CreateJobRequest request;
  FillSource(options.source, "export", request.mutable_spec());
  std::vector<std::string> settings = options.settings;
  settings.push_back("export.formats=[" + options.formats + "]");
  if (!options.gguf_types.empty())
    settings.push_back("export.gguf_types=[" + options.gguf_types + "]");
  for (const std::string& setting : settings) {
    if (const absl::Status status = ApplySetting(context.out, setting, request.mutable_spec());
        !status.ok()) {
      return context.Fail(status);
    }
  }
  return CreateAndFollow(context, &Connection::Stub::Export, request,
                         options.source.watch ? Afterwards::kWatch : Afterwards::kValidated);
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  AddSourceOptions(app, &options->source);
  app.add_option("--formats", options->formats, "adapter, merged, gguf; separated by commas")
      ->required()
      ->type_name("LIST");
  app.add_option("--gguf-types", options->gguf_types,
                 "q8_0 (default), f16, bf16, f32; separated by commas")
      ->type_name("LIST");
  app.add_option("--set", options->settings, "another key, as in a job; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_flag("-w,--watch", options->source.watch, "follow it to its end");
  return [options](Context& context) { return Export(context, *options); };
}

}  // namespace

extern const Command kExport;
const Command kExport = {"export", "write a trained adapter in other formats, as a job of its own",
                         "finetune export JOB --formats gguf --gguf-types f16,q8_0 --watch\n"
                         "finetune export --adapter my-adapter --model my-base --formats merged",
                         &Setup};

}  // namespace finetuned
