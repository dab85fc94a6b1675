#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/format.h"
#include "client/transfer.h"

namespace finetuned {
namespace {

struct Options {
  std::string job;
  std::string directory;
  std::vector<std::string> only;
  bool all = false;
};

// What people take home; "failure" and "quarantine" come with --all or --only.
constexpr const char* kUsual[] = {"adapter", "merged", "gguf", "report", "summary", "metrics"};

bool Wanted(const Options& options, const v1::Artifact& artifact) {
  if (options.all) return true;
  if (!options.only.empty()) {
    return std::find(options.only.begin(), options.only.end(), artifact.kind()) !=
           options.only.end();
  }
  return std::find(std::begin(kUsual), std::end(kUsual), artifact.kind()) != std::end(kUsual);
}

int Download(Context& context, const Options& options) {
  v1::ListArtifactsRequest request;
  request.set_job_id(options.job);
  v1::ListArtifactsResponse response;
  const grpc::Status status =
      context.connection.Call(&Connection::Stub::ListArtifacts, request, &response);
  if (!status.ok()) return context.Fail(status);
  int files = 0;
  uint64_t bytes = 0;
  for (const v1::Artifact& artifact : response.artifacts()) {
    if (!Wanted(options, artifact)) continue;
    if (const absl::Status got = Download(context, options.job, artifact, options.directory);
        !got.ok()) {
      if (Interrupted())
        context.out.Plain("interrupted; the same command goes on where it stopped");
      return context.Fail(got);
    }
    ++files;
    bytes += artifact.size_bytes();
    context.out.Line(absl::StrCat(options.directory, "/", artifact.path()));
  }
  if (files == 0) {
    context.out.Error(absl::StrCat(
        "job ", options.job, " has ",
        response.artifacts_size() == 0 ? "no artifacts yet" : "no artifacts of that kind"));
    return kFailed;
  }
  context.out.Note(absl::StrCat(files, " files, ", FormatBytes(bytes), ", SHA-256 verified"));
  return kOk;
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("job", options->job, "job id")->required()->type_name("JOB");
  app.add_option("--to", options->directory, "directory, made if it is not there")
      ->required()
      ->type_name("DIR");
  app.add_option("--only", options->only,
                 "one kind: adapter, merged, gguf, report, summary, metrics, generations, failure or "
                 "quarantine; repeatable")
      ->check(CLI::IsMember(
          {"adapter", "merged", "gguf", "report", "summary", "metrics", "generations", "failure", "quarantine"}))
      ->type_name("KIND")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_flag("--all", options->all, "also failure reports and quarantined records");
  return [options](Context& context) { return Download(context, *options); };
}

}  // namespace

extern const Command kDownload;
const Command kDownload = {
    "download",
    "take a job's adapter, merged model, GGUF and report home; goes on where it stopped",
    "finetune download JOB --to out/\nfinetune download JOB --to out/ --only gguf", &Setup};

}  // namespace finetuned
