#include <CLI/CLI.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/event_text.h"
#include "client/format.h"
#include "client/watch.h"

namespace finetuned {
namespace {

struct Options {
  std::string job;
  std::string level = "info";
  int64_t after_seq = 0;
  bool follow = false;
};

void Print(const Output& out, const v1::JobEvent& event, int level) {
  if (event.level() != v1::LEVEL_UNSPECIFIED && event.level() < level) return;
  if (out.machine()) {
    out.Message(event, /*compact=*/true);
    return;
  }
  const std::string text = EventText(event);
  if (text.empty()) return;
  out.Line(absl::StrCat(
      out.Paint(Color::kDim, absl::StrCat(FormatTime(event.time()), "  ", event.seq())), "  ",
      out.Paint(EventColor(event), text)));
}

int Logs(Context& context, const Options& options) {
  v1::Level level;
  v1::Level_Parse(absl::AsciiStrToUpper(options.level), &level);
  if (options.follow) {
    const grpc::Status status =
        FollowEvents(context, options.job, options.after_seq, [&](const v1::JobEvent& event) {
          Print(context.out, event, level);
          return true;
        });
    return status.ok() ? kOk : context.Fail(status);
  }
  v1::ListEventsRequest request;
  request.set_job_id(options.job);
  request.set_after_seq(options.after_seq);
  while (true) {
    v1::ListEventsResponse response;
    const grpc::Status status =
        context.connection.Call(&Connection::Stub::ListEvents, request, &response);
    if (!status.ok()) return context.Fail(status);
    for (const v1::JobEvent& event : response.events()) Print(context.out, event, level);
    if (response.next_after_seq() <= request.after_seq() || Interrupted()) break;
    request.set_after_seq(response.next_after_seq());
  }
  return Interrupted() ? kInterrupted : kOk;
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("job", options->job, "job id")->required()->type_name("JOB");
  app.add_option("--level", options->level,
                 "lowest level shown: debug, info (default), warning or error")
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
      ->type_name("LEVEL");
  app.add_option("--after-seq", options->after_seq, "start after this event")->type_name("SEQ");
  app.add_flag("-f,--follow", options->follow, "go on until the job ends");
  return [options](Context& context) { return Logs(context, *options); };
}

}  // namespace

extern const Command kLogs;
const Command kLogs = {
    "logs", "every event of a job as a line, with time and number",
    "finetune logs JOB\nfinetune logs JOB --level warning\nfinetune logs JOB --follow", &Setup};

}  // namespace finetuned
