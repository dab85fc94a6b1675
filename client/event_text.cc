#include "client/event_text.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/format.h"

namespace finetuned {
namespace {

uint64_t MemoryOf(const v1::TrainingMetrics& metrics) {
  return metrics.device_allocated_bytes() > 0 ? metrics.device_allocated_bytes()
                                              : metrics.host_rss_bytes();
}

std::string EvaluationText(const v1::EvaluationResult& result) {
  std::string text =
      absl::StrCat("evaluation of the ", result.model(), " model",
                   result.model() == "base" ? "" : absl::StrCat(" at step ", result.step()),
                   ": loss ", FormatLoss(result.response().loss()), ", perplexity ",
                   absl::StrFormat("%.3f", result.response().perplexity()), " over ",
                   result.samples(), " samples in ", FormatSeconds(result.seconds()));
  if (result.is_best()) text += "  (best so far)";
  if (!result.verdict().empty()) absl::StrAppend(&text, "  ", result.verdict());
  return text;
}

std::string DatasetText(const v1::DatasetStatistics& data) {
  std::string text =
      absl::StrCat("data: ", data.records(), " records (", data.shape(), ") → ",
                   data.train_samples(), " training and ", data.validation_samples(),
                   " validation samples, ", FormatCount(data.train_tokens()), " tokens");
  if (data.packed_rows() > 0) {
    absl::StrAppend(&text, ", packed to ", data.packed_rows(), " rows, ",
                    absl::StrFormat("%.0f %% full", 100 * data.packing_efficiency()));
  }
  int64_t dropped = 0;
  for (const auto& [reason, count] : data.dropped()) dropped += count;
  if (dropped > 0) absl::StrAppend(&text, ", ", dropped, " dropped");
  for (const std::string& warning : data.warnings()) absl::StrAppend(&text, "; ", warning);
  return text;
}

std::string FailureLine(const v1::Failure& failure) {
  return absl::StrCat("failure ", v1::FailureReason_Name(failure.reason()), " in ",
                      StageText(failure.stage()), ": ", failure.message());
}

std::string Text(const v1::JobEvent& event) {
  switch (event.body_case()) {
    case v1::JobEvent::kState: {
      const v1::StateChange& change = event.state();
      std::string text = absl::StrCat("state ", StateText(change.to()));
      if (change.attempt() > 1) absl::StrAppend(&text, " (attempt ", change.attempt(), ")");
      if (!change.reason().empty()) absl::StrAppend(&text, ": ", change.reason());
      return text;
    }
    case v1::JobEvent::kStage: {
      const v1::StageChange& change = event.stage();
      const std::string name = StageText(change.stage());
      if (change.reused()) return absl::StrCat(name, ": done by an earlier attempt");
      if (change.finished())
        return absl::StrCat(name, " done in ", FormatSeconds(change.seconds()));
      return absl::StrCat("stage ", name);
    }
    case v1::JobEvent::kProgress:
      return ProgressText(event.progress());
    case v1::JobEvent::kMetrics:
      return MetricsText(event.metrics());
    case v1::JobEvent::kMemory:
      return absl::StrCat("memory at ", event.memory().point(), ": ",
                          event.memory().device_allocated_bytes() > 0
                              ? absl::StrCat(FormatBytes(event.memory().device_allocated_bytes()),
                                             " on the device, ")
                              : "",
                          FormatBytes(event.memory().host_rss_bytes()), " on the host");
    case v1::JobEvent::kEpoch:
      return absl::StrCat("epoch ", event.epoch().epoch(), ": mean loss ",
                          FormatLoss(event.epoch().train_loss()), " in ",
                          FormatSeconds(event.epoch().seconds()));
    case v1::JobEvent::kEvaluation:
      return EvaluationText(event.evaluation());
    case v1::JobEvent::kCheckpoint:
      return absl::StrCat("checkpoint at step ", event.checkpoint().step(), " (",
                          event.checkpoint().reason(), event.checkpoint().is_best() ? ", best" : "",
                          ")");
    case v1::JobEvent::kIntervention:
      return absl::StrCat(event.intervention().text());
    case v1::JobEvent::kArtifact:
      return absl::StrCat("artifact ", event.artifact().path(), "  ",
                          FormatBytes(event.artifact().size_bytes()));
    case v1::JobEvent::kLog:
      return event.log().text();
    case v1::JobEvent::kFinding: {
      std::string text = absl::StrCat(event.finding().rule(), ": ", event.finding().observed(),
                                      "; ", event.finding().cause());
      for (const std::string& fix : event.finding().fixes()) absl::StrAppend(&text, "; try ", fix);
      return text;
    }
    case v1::JobEvent::kFailure:
      return FailureLine(event.failure());
    case v1::JobEvent::kDataset:
      return DatasetText(event.dataset());
    case v1::JobEvent::kResult:
    case v1::JobEvent::BODY_NOT_SET:
      return "";
  }
  return "";
}

}  // namespace

std::string MetricsText(const v1::TrainingMetrics& metrics) {
  std::string text = absl::StrCat("step ", metrics.step());
  if (metrics.total_steps() > 0) absl::StrAppend(&text, "/", metrics.total_steps());
  absl::StrAppend(&text, "  loss ", FormatLoss(metrics.loss()), "  lr ",
                  absl::StrFormat("%.2e", metrics.learning_rate()), "  grad ",
                  absl::StrFormat("%.3g", metrics.grad_norm()));
  if (metrics.tokens_per_second() > 0) {
    absl::StrAppend(&text, "  ", FormatCount(metrics.tokens_per_second()), " tok/s");
  }
  if (MemoryOf(metrics) > 0) absl::StrAppend(&text, "  ", FormatBytes(MemoryOf(metrics)));
  if (metrics.eta_seconds() > 0) {
    absl::StrAppend(&text, "  ETA ", FormatSeconds(metrics.eta_seconds()));
  }
  if (metrics.skipped()) text += "  (update skipped: not finite)";
  return text;
}

std::string ProgressText(const v1::Progress& progress) {
  std::string text = StageText(progress.stage());
  if (progress.total() > 0) {
    absl::StrAppend(&text, "  ", progress.done(), "/", progress.total(), " ", progress.unit(), "  ",
                    100 * progress.done() / progress.total(), " %");
  } else if (progress.done() > 0) {
    absl::StrAppend(&text, "  ", progress.done(), " ", progress.unit());
  }
  if (!progress.text().empty()) absl::StrAppend(&text, "  ", progress.text());
  if (progress.has_eta_seconds()) {
    absl::StrAppend(&text, "  ETA ", FormatSeconds(progress.eta_seconds()));
  }
  return text;
}

std::string EventText(const v1::JobEvent& event) { return Printable(Text(event), true); }

Color EventColor(const v1::JobEvent& event) {
  if (event.level() == v1::ERROR || event.body_case() == v1::JobEvent::kFailure) return Color::kRed;
  if (event.level() == v1::WARNING) return Color::kYellow;
  if (event.body_case() == v1::JobEvent::kState) return StateColor(event.state().to());
  if (event.body_case() == v1::JobEvent::kStage) return Color::kBlue;
  if (event.body_case() == v1::JobEvent::kEvaluation) return Color::kGreen;
  return event.level() == v1::DEBUG ? Color::kDim : Color::kNone;
}

}  // namespace finetuned
