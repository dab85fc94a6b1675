// What a person takes home besides weights: report.html (self-contained, no network) and summary.json.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "finetuned/v1/types.pb.h"

namespace finetuned {

struct ReportInputs {
  std::string job_id;
  v1::JobSpec spec;                               // resolved
  std::vector<v1::TrainingMetrics> metrics;       // by step
  std::vector<v1::EvaluationResult> evaluations;  // base, each of training, final
  std::vector<v1::Checkpoint> checkpoints;
  v1::DatasetStatistics dataset;
  v1::JobResult result;                           // with samples and verdict
  v1::Estimate estimate;
  std::vector<std::pair<std::string, std::string>> exports;  // name, "verified: max relative error 3.1e-3" or why not
  std::vector<std::pair<std::string, std::string>> provenance;  // base model, hashes, versions, device
};

// Curves (loss with evaluations, learning rate, gradient norm, memory) as inline SVG, evaluation table, sample answers
// base / tuned / reference, data statistics, settings, provenance. Works light and dark, and printed.
std::string RenderReportHtml(const ReportInputs& inputs);
// The same facts for programs; field names as in the proto.
std::string RenderSummaryJson(const ReportInputs& inputs);

}  // namespace finetuned
