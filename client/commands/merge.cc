#include <CLI/CLI.hpp>

#include "client/cli.h"
#include "client/create.h"
#include "client/source_options.h"

namespace finetuned {
namespace {

struct Options {
  SourceOptions source;
  std::string dtype;
  std::string base;
};

int Merge(Context& context, const Options& options) {
  v1::CreateJobRequest request;
  v1::JobSpec* spec = request.mutable_spec();
  FillSource(options.source, "merge", spec);
  spec->mutable_export_()->add_formats("merged");
  if (!options.dtype.empty()) spec->mutable_export_()->set_merged_dtype(options.dtype);
  if (!options.base.empty()) spec->mutable_export_()->set_merge_base(options.base);
  return CreateAndFollow(context, &Connection::Stub::Merge, request,
                         options.source.watch ? Afterwards::kWatch : Afterwards::kValidated);
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  AddSourceOptions(app, &options->source);
  app.add_option("--dtype", options->dtype, "bfloat16 (default), float16 or float32")
      ->check(CLI::IsMember({"bfloat16", "float16", "float32"}))
      ->type_name("DTYPE");
  app.add_option("--base", options->base, "full_precision (default) or dequantized")
      ->check(CLI::IsMember({"full_precision", "dequantized"}))
      ->type_name("BASE");
  app.add_flag("-w,--watch", options->source.watch, "follow it to its end");
  return [options](Context& context) { return Merge(context, *options); };
}

}  // namespace

extern const Command kMerge;
const Command kMerge = {"merge", "merge an adapter into its base model, as a job of its own",
                        "finetune merge JOB --watch\nfinetune merge --adapter my-adapter --model "
                        "my-base --dtype float32",
                        &Setup};

}  // namespace finetuned
