#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/event_text.h"
#include "client/format.h"
#include "client/job_file.h"

namespace finetuned {
namespace {

struct Options {
  JobInput input;
  int samples = 3;
};

void PrintSample(const Output& out, const v1::PreviewSample& sample) {
  const auto trained = std::count(sample.trained().begin(), sample.trained().end(), true);
  out.Line(out.Paint(
      Color::kBold,
      absl::StrCat("sample ", Printable(sample.sample_id(), true), ": ", sample.turns_size(),
                   " turns, ", sample.input_ids_size(), " tokens, ", trained, " trained")));
  for (const v1::PreviewTurn& turn : sample.turns()) {
    out.Line(
        absl::StrCat("  ", Printable(turn.role(), true), ": ", Printable(turn.content(), false)));
  }
  out.Line(out.Paint(Color::kDim, "  as the model sees it:"));
  out.Line(Printable(sample.text(), false));
  // Runs of equal mask, as token counts: which part of the text trains.
  std::string mask;
  for (int i = 0; i < sample.trained_size();) {
    int end = i;
    while (end < sample.trained_size() && sample.trained(end) == sample.trained(i)) ++end;
    absl::StrAppend(&mask, mask.empty() ? "" : ", ", sample.trained(i) ? "train " : "skip ",
                    end - i);
    i = end;
  }
  out.Line(absl::StrCat(out.Paint(Color::kDim, "  loss mask in tokens: "), mask, "\n"));
}

int Preview(Context& context, const Options& options) {
  int code = kOk;
  const std::optional<LoadedJob> job = LoadJob(context, options.input, &code);
  if (!job) return code;
  v1::PreviewDatasetRequest request;
  *request.mutable_spec() = job->spec;
  request.set_samples(options.samples);
  v1::PreviewDatasetResponse response;
  const grpc::Status status =
      context.connection.Call(&Connection::Stub::PreviewDataset, request, &response, 600);
  if (!status.ok()) return context.Fail(status, options.input.file, job->lines);
  if (context.out.machine()) {
    context.out.Message(response);
    return kOk;
  }
  for (const v1::PreviewSample& sample : response.samples()) PrintSample(context.out, sample);
  v1::JobEvent event;
  *event.mutable_dataset() = response.statistics();
  context.out.Line(EventText(event));
  for (const auto& [reason, count] : response.statistics().dropped()) {
    context.out.Line(absl::StrCat("  dropped, ", Printable(reason, true), ": ", count));
  }
  return kOk;
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  AddJobOptions(app, &options->input);
  app.add_option("-n,--samples", options->samples, "samples shown; default 3")
      ->check(CLI::Range(1, 100))
      ->type_name("N");
  return [options](Context& context) { return Preview(context, *options); };
}

}  // namespace

extern const Command kPreview;
const Command kPreview = {
    "preview",
    "first samples of a job's data as parsed, templated and tokenized, with the loss mask",
    "finetune preview job.yaml\nfinetune preview job.yaml -n 10 --set dataset.shape=alpaca",
    &Setup};

}  // namespace finetuned
