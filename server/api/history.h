// What the event log says about a job: metrics as series, checkpoints, evaluations, artifacts. A
// log is read page by page, each page a read of its own, so that a long one keeps no reader thread
// from others.
//
// Threads: ScanEvents from any thread; the rest are plain classes without locks.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "finetuned/v1/service.pb.h"
#include "server/store/job_store.h"

namespace finetuned {

// Calls `visit` for the job's events 1…last (last = the newest at the first read) in order, then
// `done` once; both on the store's reader threads. NOT_FOUND when the job is not there.
void ScanEvents(JobStore* store, const std::string& job_id,
                std::function<void(const v1::JobEvent&)> visit,
                std::function<void(absl::Status)> done);

// Training and evaluation metrics by step. A step that was done twice (a resumed run repeats those
// behind its checkpoint) counts once, with the later value. Values that are not finite are left
// out.
class MetricHistory {
 public:
  // "loss", "learning_rate", "grad_norm", "tokens_per_second", "eval_loss"
  static const std::vector<std::string>& Names();

  void Visit(const v1::JobEvent& event);
  // The named series (empty: all that have points), each cut to at most max_points buckets of
  // neighbouring steps.
  v1::ListMetricsResponse Series(const std::vector<std::string>& names, int max_points) const;

 private:
  void Record(const std::string& name, int64_t step, double value);

  std::map<std::string, std::map<int64_t, double>> values_;
};

// The newest record of each checkpoint step; exactly one is the best.
class CheckpointHistory {
 public:
  void Visit(const v1::JobEvent& event);
  v1::ListCheckpointsResponse List() const;

 private:
  std::map<int64_t, v1::Checkpoint> by_step_;
};

// The newest record of each (model, step).
class EvaluationHistory {
 public:
  void Visit(const v1::JobEvent& event);
  v1::ListEvaluationsResponse List() const;

 private:
  std::map<std::pair<int64_t, std::string>, v1::EvaluationResult> by_step_;
};

// The newest record of each path, from artifact events and the result.
class ArtifactHistory {
 public:
  void Visit(const v1::JobEvent& event);
  v1::ListArtifactsResponse List() const;

 private:
  std::map<std::string, v1::Artifact> by_path_;
};

}  // namespace finetuned
