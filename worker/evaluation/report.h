// report.html: what a person, or the team it is forwarded to, needs to know about a finished job.
//
// One self-contained page: no network, no external script; light, dark and printed; readable
// without its script, which only adds values under the pointer. Order: verdict, key figures, what
// to look at, evaluation table, sample answers, curves, data, time and memory, exports,
// checkpoints, settings, provenance. A section without facts is left out.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "finetuned/v1/types.pb.h"

namespace finetuned {

struct ReportInputs {
  std::string job_id;
  v1::JobSpec spec;                          // resolved
  std::vector<v1::TrainingMetrics> metrics;  // by step
  std::vector<v1::EvaluationResult>
      evaluations;  // of the history: base and each during training, by step
  std::vector<v1::Checkpoint> checkpoints;
  v1::DatasetStatistics dataset;
  v1::JobResult result;  // with base, tuned, samples, artifacts, stage_seconds and verdict
  v1::Estimate estimate;
  // Name ("gguf q8_0"), and "verified: max relative error 3.1e-3" or why it is not.
  std::vector<std::pair<std::string, std::string>> exports;
  std::vector<std::pair<std::string, std::string>>
      provenance;  // "base model sha256", "device", "versions", …
};

// Pure; thread-safe. HTML that is also well-formed XML; every text of the inputs is escaped, and
// long ones are cut. About 1 MB at most, whatever the number of steps.
std::string RenderReportHtml(const ReportInputs& inputs);

// "What to look at": what a careful reader would point out. In words, the gravest first; rules in
// report_findings.cc.
struct ReportFinding {
  bool warning = false;  // else a remark
  std::string text;
};
std::vector<ReportFinding> ReportFindings(const ReportInputs& inputs);

// True when a phrase of one to eight words comes at least four times in a row: "a kind of kind of
// kind of kind of".
bool RepeatsItself(const std::string& text);

}  // namespace finetuned
