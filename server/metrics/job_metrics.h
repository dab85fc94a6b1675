// Turns the jobs' event log into metrics: counts and durations for all jobs, gauges for the active
// ones.
//
// Threads: OnEvent is called from the store's writer thread (it does not block); Seed once before.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "finetuned/v1/types.pb.h"
#include "server/metrics/metrics.h"

namespace finetuned {

class JobMetrics {
 public:
  // More active jobs than this have no gauges of their own, so that the number of series stays
  // bounded.
  static constexpr size_t kMaxJobs = 200;

  explicit JobMetrics(Metrics* metrics) : metrics_(metrics) {}

  // Jobs that have not ended, as the store has them at start: their times, and tokens counted
  // before a restart.
  void Seed(const std::vector<v1::Job>& jobs);
  void OnEvent(const std::string& job_id, const std::string& serialized_event);

 private:
  struct Job {
    absl::Time created;
    absl::Time queued;
    v1::FailureReason reason = v1::FAILURE_REASON_UNSPECIFIED;
    int64_t trained_tokens = 0;
    bool has_gauges = false;
  };

  void OnState(const std::string& job_id, Job& job, const v1::JobEvent& event, absl::Time time);
  void OnTraining(const std::string& job_id, Job& job, const v1::TrainingMetrics& training);
  void OnEvaluation(const std::string& job_id, Job& job, const v1::EvaluationResult& evaluation);
  // False when the job is above the cap.
  bool AllowGauges(Job& job);
  void RemoveGauges(const std::string& job_id, Job& job);

  Metrics* const metrics_;
  std::mutex mutex_;
  std::map<std::string, Job> jobs_;  // active ones
  size_t with_gauges_ = 0;
};

}  // namespace finetuned
