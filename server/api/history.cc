#include "server/api/history.h"

#include <algorithm>
#include <cmath>

namespace finetuned {
namespace {

constexpr int kPage = 1000;

struct Scan {
  JobStore* store;
  std::string job_id;
  std::function<void(const v1::JobEvent&)> visit;
  std::function<void(absl::Status)> done;
  int64_t at = 0;
  int64_t last = -1;  // unknown before the first page
};

absl::Status ReadPage(Scan& scan, StoreReader& reader) {
  if (scan.last < 0) {
    auto job = reader.GetJob(scan.job_id);
    if (!job.ok()) return job.status();
    auto last = reader.LastSeq(scan.job_id);
    if (!last.ok()) return last.status();
    scan.last = *last;
  }
  if (scan.at >= scan.last) return absl::OkStatus();
  auto page = reader.EventsAfter(scan.job_id, scan.at, kPage);
  if (!page.ok()) return page.status();
  if (page->empty()) scan.last = scan.at;  // deleted meanwhile
  for (const auto& serialized : *page) {
    v1::JobEvent event;
    if (!event.ParseFromString(*serialized))
      return absl::DataLossError("an event of job " + scan.job_id + " cannot be read");
    scan.at = event.seq();
    if (scan.at > scan.last) break;
    scan.visit(event);
  }
  return absl::OkStatus();
}

void ScanOn(std::shared_ptr<Scan> scan) {
  scan->store->Read([scan](StoreReader& reader) {
    absl::Status status = ReadPage(*scan, reader);
    if (status.ok() && scan->at < scan->last) return ScanOn(scan);
    scan->done(status);
  });
}

}  // namespace

void ScanEvents(JobStore* store, const std::string& job_id,
                std::function<void(const v1::JobEvent&)> visit,
                std::function<void(absl::Status)> done) {
  auto scan = std::make_shared<Scan>();
  scan->store = store;
  scan->job_id = job_id;
  scan->visit = std::move(visit);
  scan->done = std::move(done);
  ScanOn(std::move(scan));
}

const std::vector<std::string>& MetricHistory::Names() {
  static const auto* names = new std::vector<std::string>{"loss", "learning_rate", "grad_norm",
                                                          "tokens_per_second", "eval_loss"};
  return *names;
}

void MetricHistory::Record(const std::string& name, int64_t step, double value) {
  if (std::isfinite(value)) values_[name][step] = value;
}

void MetricHistory::Visit(const v1::JobEvent& event) {
  if (event.has_metrics()) {
    const v1::TrainingMetrics& metrics = event.metrics();
    Record("loss", metrics.step(), metrics.loss());
    Record("learning_rate", metrics.step(), metrics.learning_rate());
    Record("grad_norm", metrics.step(), metrics.grad_norm());
    Record("tokens_per_second", metrics.step(), metrics.tokens_per_second());
  } else if (event.has_evaluation() && event.evaluation().model() == "tuned") {
    // Early stopping and the best checkpoint go by the loss of the response.
    Record("eval_loss", event.evaluation().step(), event.evaluation().response().loss());
  }
}

v1::ListMetricsResponse MetricHistory::Series(const std::vector<std::string>& names,
                                              int max_points) const {
  v1::ListMetricsResponse response;
  for (const std::string& name : Names()) {
    if (!names.empty() && std::find(names.begin(), names.end(), name) == names.end()) continue;
    const auto found = values_.find(name);
    if (found == values_.end()) {
      if (!names.empty()) response.add_series()->set_name(name);
      continue;
    }
    v1::MetricSeries* series = response.add_series();
    series->set_name(name);
    const std::map<int64_t, double>& values = found->second;
    const size_t bucket = (values.size() + max_points - 1) / max_points;
    size_t in_bucket = 0;
    v1::MetricPoint* point = nullptr;
    double sum = 0;
    for (const auto& [step, value] : values) {
      if (in_bucket == 0) {
        point = series->add_points();
        point->set_step(step);
        point->set_min(value);
        point->set_max(value);
        sum = 0;
      }
      point->set_min(std::min(point->min(), value));
      point->set_max(std::max(point->max(), value));
      sum += value;
      ++in_bucket;
      point->set_mean(sum / static_cast<double>(in_bucket));
      if (in_bucket == bucket) in_bucket = 0;
    }
  }
  return response;
}

void CheckpointHistory::Visit(const v1::JobEvent& event) {
  if (!event.has_checkpoint()) return;
  if (event.checkpoint().is_best())
    for (auto& [step, checkpoint] : by_step_) checkpoint.set_is_best(false);
  by_step_[event.checkpoint().step()] = event.checkpoint();
}

v1::ListCheckpointsResponse CheckpointHistory::List() const {
  v1::ListCheckpointsResponse response;
  for (const auto& [step, checkpoint] : by_step_) *response.add_checkpoints() = checkpoint;
  return response;
}

void EvaluationHistory::Visit(const v1::JobEvent& event) {
  if (event.has_evaluation())
    by_step_[{event.evaluation().step(), event.evaluation().model()}] = event.evaluation();
}

v1::ListEvaluationsResponse EvaluationHistory::List() const {
  v1::ListEvaluationsResponse response;
  for (const auto& [key, evaluation] : by_step_) *response.add_evaluations() = evaluation;
  return response;
}

void ArtifactHistory::Visit(const v1::JobEvent& event) {
  if (event.has_artifact()) by_path_[event.artifact().path()] = event.artifact();
  for (const v1::Artifact& artifact : event.result().artifacts())
    by_path_[artifact.path()] = artifact;
}

v1::ListArtifactsResponse ArtifactHistory::List() const {
  v1::ListArtifactsResponse response;
  for (const auto& [path, artifact] : by_path_) *response.add_artifacts() = artifact;
  return response;
}

}  // namespace finetuned
