#include "client/watch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "client/event_text.h"
#include "client/format.h"
#include "client/result.h"

namespace finetuned {
namespace {

// Statuses after which the same question may be asked again: the connection or the server went
// away.
bool IsLost(grpc::StatusCode code) {
  return code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::ABORTED ||
         code == grpc::StatusCode::UNKNOWN || code == grpc::StatusCode::INTERNAL ||
         code == grpc::StatusCode::RESOURCE_EXHAUSTED || code == grpc::StatusCode::CANCELLED ||
         code == grpc::StatusCode::DEADLINE_EXCEEDED;
}

grpc::Status GetJob(Context& context, const std::string& job_id, v1::Job* job) {
  v1::GetJobRequest request;
  request.set_job_id(job_id);
  return context.connection.Call(&Connection::Stub::GetJob, request, job);
}

// Prints events: on a terminal above a line that is redrawn, elsewhere one after another.
class Printer {
 public:
  explicit Printer(const Output& out) : out_(out), live_(out.terminal() && !out.machine()) {}
  ~Printer() { ClearLive(); }

  void Event(const v1::JobEvent& event) {
    if (out_.machine()) {
      out_.Message(event, /*compact=*/true);
      return;
    }
    switch (event.body_case()) {
      case v1::JobEvent::kMetrics:
        losses_.push_back(event.metrics().loss());
        if (live_) {
          Live(MetricsLive(event.metrics()));
        } else if (Worth(event.metrics())) {
          Above(event);
        }
        return;
      case v1::JobEvent::kProgress:
        if (live_) {
          Live(ProgressText(event.progress()));
        } else if (Worth(event.progress())) {
          Above(event);
        }
        return;
      default:
        Above(event);
    }
  }

  void Notice(std::string_view text) {
    ClearLive();
    out_.Note(text);
    Redraw();
  }

 private:
  void Above(const v1::JobEvent& event) {
    const std::string text = EventText(event);
    if (text.empty()) return;
    ClearLive();
    if (event.body_case() == v1::JobEvent::kStage) line_.clear();  // the old stage's progress
    if (event.body_case() == v1::JobEvent::kState && IsFinal(event.state().to())) line_.clear();
    out_.Line(absl::StrCat(out_.Paint(Color::kDim, FormatClock(event.time())), "  ",
                           out_.Paint(EventColor(event), text)));
    Redraw();
  }

  std::string MetricsLive(const v1::TrainingMetrics& metrics) const {
    const std::string text = absl::StrCat("training  ", MetricsText(metrics));
    const size_t used = DisplayWidth(text);
    const size_t room = out_.width() > used + 4 ? std::min<size_t>(out_.width() - used - 4, 40) : 0;
    return absl::StrCat(text, "  ", Sparkline(losses_, room));
  }

  void Live(std::string text) {
    line_ = Printable(text, true);
    ClearLive();
    Redraw();
  }
  void Redraw() {
    if (!live_ || line_.empty()) return;
    out_.Print(absl::StrCat("\r", out_.Paint(Color::kBold, Truncate(line_, out_.width() - 1))));
    drawn_ = true;
  }
  void ClearLive() {
    if (drawn_) out_.Print("\r\x1b[2K");
    drawn_ = false;
  }

  // Piped: about fifty lines of metrics and every tenth part of other work.
  bool Worth(const v1::TrainingMetrics& metrics) {
    const int64_t stride = std::max<int64_t>(1, metrics.total_steps() / 50);
    if (metrics.step() != 1 && metrics.step() != metrics.total_steps() && !metrics.skipped() &&
        metrics.step() < last_step_ + stride) {
      return false;
    }
    last_step_ = metrics.step() == 1 ? 0 : metrics.step();
    return true;
  }
  bool Worth(const v1::Progress& progress) {
    const int tenth =
        progress.total() > 0 ? static_cast<int>(10 * progress.done() / progress.total()) : 0;
    if (progress.stage() == last_stage_ && progress.unit() == last_unit_ && tenth == last_tenth_)
      return false;
    last_stage_ = progress.stage();
    last_unit_ = progress.unit();
    last_tenth_ = tenth;
    return true;
  }

  const Output& out_;
  const bool live_;
  std::vector<double> losses_;
  std::string line_;
  bool drawn_ = false;
  int64_t last_step_ = 0;
  v1::Stage last_stage_ = v1::STAGE_UNSPECIFIED;
  std::string last_unit_;
  int last_tenth_ = -1;
};

grpc::Status Follow(Context& context, const std::string& job_id, int64_t after_seq,
                    const std::function<bool(const v1::JobEvent&)>& on_event,
                    const std::function<void(std::string_view)>& notice) {
  if (grpc::Status ready = context.connection.WaitReady(); !ready.ok()) return ready;
  bool lost = false;
  int wait_ms = 250;
  while (true) {
    v1::WatchJobRequest request;
    request.set_job_id(job_id);
    request.set_after_seq(after_seq);
    grpc::ClientContext call;
    CancelOnInterrupt guard(&call);
    const auto reader = context.connection.stub().WatchJob(&call, request);
    v1::JobEvent event;
    while (reader->Read(&event)) {
      if (lost) notice(absl::StrCat("connected again; going on after event ", after_seq));
      lost = false;
      wait_ms = 250;
      if (event.seq() <= after_seq) continue;
      if (event.seq() != after_seq + 1) {
        call.TryCancel();
        reader->Finish();
        return grpc::Status(
            grpc::StatusCode::DATA_LOSS,
            absl::StrCat("the event log has a gap: after ", after_seq, " came ", event.seq()));
      }
      after_seq = event.seq();
      if (!on_event(event)) {
        call.TryCancel();
        reader->Finish();
        return grpc::Status::OK;
      }
    }
    const grpc::Status status = reader->Finish();
    if (Interrupted()) return grpc::Status(grpc::StatusCode::CANCELLED, "interrupted");
    if (status.ok()) {
      // The stream ends after the final event; a server that stops in order may end it too.
      v1::Job job;
      const grpc::Status known = GetJob(context, job_id, &job);
      if (known.ok() && IsFinal(job.state()) && job.last_seq() <= after_seq) return status;
      if (!known.ok() && !IsLost(known.error_code())) return known;
    } else if (!IsLost(status.error_code())) {
      return status;
    }
    if (!lost && !status.ok()) {
      notice(absl::StrCat(
          "connection to ", context.connection.address(),
          " lost; the job goes on, trying again until the server is back (Ctrl-C ends)"));
      lost = true;
    }
    if (SleepUnlessInterrupted(wait_ms)) {
      return grpc::Status(grpc::StatusCode::CANCELLED, "interrupted");
    }
    wait_ms = std::min(wait_ms * 2, 3000);
  }
}

}  // namespace

grpc::Status FollowEvents(Context& context, const std::string& job_id, int64_t after_seq,
                          const std::function<bool(const v1::JobEvent&)>& on_event) {
  return Follow(context, job_id, after_seq, on_event,
                [&](std::string_view text) { context.out.Note(text); });
}

int Watch(Context& context, const std::string& job_id, int64_t after_seq) {
  grpc::Status status;
  int64_t last = after_seq;
  {
    Printer printer(context.out);
    status = Follow(
        context, job_id, after_seq,
        [&](const v1::JobEvent& event) {
          printer.Event(event);
          last = event.seq();
          return true;
        },
        [&](std::string_view text) { printer.Notice(text); });
  }
  if (Interrupted()) {
    context.out.Plain(absl::StrCat("the job goes on; watch it again with: finetune watch ", job_id,
                                   " --after-seq ", last));
    return kInterrupted;
  }
  if (!status.ok()) return context.Fail(status);
  v1::Job job;
  if (status = GetJob(context, job_id, &job); !status.ok()) return context.Fail(status);
  if (context.out.machine()) return job.state() == v1::SUCCEEDED ? kOk : kFailed;
  return PrintEnd(context.out, job);
}

int WaitUntilValidated(Context& context, const std::string& job_id) {
  bool checked = false;
  const grpc::Status status = FollowEvents(context, job_id, 0, [&](const v1::JobEvent& event) {
    checked = event.body_case() == v1::JobEvent::kState && event.state().to() != v1::VALIDATING;
    return !checked;
  });
  if (Interrupted()) {
    context.out.Plain(absl::StrCat("the job goes on; watch it with: finetune watch ", job_id));
    return kInterrupted;
  }
  if (!status.ok()) return context.Fail(status);
  v1::Job job;
  if (const grpc::Status got = GetJob(context, job_id, &job); !got.ok()) return context.Fail(got);
  if (job.state() != v1::FAILED) return kOk;
  PrintFailure(context.out, job);
  return kFailed;
}

}  // namespace finetuned
