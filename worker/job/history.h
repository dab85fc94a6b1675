// What a job has measured so far, across attempts: metrics.jsonl (an artifact, one JSON object a step) and the evaluations.
// After a resume, entries beyond the checkpoint's step are replaced by those of the repeated steps.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "finetuned/v1/types.pb.h"

namespace finetuned {

class History {
 public:
  // Reads what earlier attempts left. metrics_path: artifacts/metrics.jsonl; evaluations_path: beside the stages.
  static absl::StatusOr<std::unique_ptr<History>> Open(std::string metrics_path, std::string evaluations_path);

  // Appends; a step at or before the last one first removes what it replaces.
  absl::Status Add(const v1::TrainingMetrics& metrics);
  absl::Status Add(const v1::EvaluationResult& evaluation);
  const std::vector<v1::TrainingMetrics>& metrics() const { return metrics_; }
  const std::vector<v1::EvaluationResult>& evaluations() const { return evaluations_; }

 private:
  History(std::string metrics_path, std::string evaluations_path)
      : metrics_path_(std::move(metrics_path)), evaluations_path_(std::move(evaluations_path)) {}

  std::string metrics_path_, evaluations_path_;
  std::vector<v1::TrainingMetrics> metrics_;
  std::vector<v1::EvaluationResult> evaluations_;
};

}  // namespace finetuned
