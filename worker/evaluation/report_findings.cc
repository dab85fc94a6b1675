#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "worker/evaluation/html_text.h"
#include "worker/evaluation/report.h"

namespace finetuned {
namespace {

// Rise of the prompt perplexity that is worth a word: the threshold of forgetting on general text.
constexpr double kForgetting = 1.05;
// Rise of the evaluation loss over its best, in nats a token, that is more than its noise.
constexpr double kOverfittingRise = 0.02;
// A share of fewer steps says nothing.
constexpr int64_t kFewSteps = 10;

std::string Plural(int64_t count, const char* one, const char* many) {
  return absl::StrCat(GroupedCount(count), " ", count == 1 ? one : many);
}

}  // namespace

bool RepeatsItself(const std::string& text) {
  constexpr size_t kLongestPhrase = 8, kTimes = 4;
  const std::vector<std::string> words =
      absl::StrSplit(absl::AsciiStrToLower(text), absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty());
  for (size_t period = 1; period <= kLongestPhrase; ++period) {
    size_t same = 0;  // words in a row that equal the one a period before
    for (size_t i = period; i < words.size(); ++i) {
      same = words[i] == words[i - period] ? same + 1 : 0;
      if (same >= period * (kTimes - 1)) return true;
    }
  }
  return false;
}

std::vector<ReportFinding> ReportFindings(const ReportInputs& in) {
  std::vector<ReportFinding> findings;
  const auto warn = [&](std::string text) { findings.push_back({true, std::move(text)}); };
  const auto remark = [&](std::string text) { findings.push_back({false, std::move(text)}); };
  const v1::JobResult& result = in.result;

  for (const auto& [name, check] : in.exports) {
    if (!absl::StartsWith(check, "verified"))
      warn(absl::StrCat("Export ", name, " is not verified: ", check));
  }

  int64_t skipped = 0, clipped = 0, measured = 0;
  for (const v1::TrainingMetrics& step : in.metrics) {
    skipped += step.skipped() || !std::isfinite(step.loss()) || !std::isfinite(step.grad_norm());
    measured += std::isfinite(step.grad_norm());
    clipped += in.spec.max_grad_norm() > 0 && step.grad_norm() > in.spec.max_grad_norm();
  }
  if (skipped > 0) {
    warn(absl::StrCat(Plural(skipped, "update was", "updates were"),
                      " skipped because the loss or the gradient was not finite. Weights ",
                      "are untouched by them; the run's log names the samples. More than a few ask "
                      "for a lower learning_rate."));
  }

  const v1::EvaluationResult *best = nullptr, *last = nullptr;
  for (const v1::EvaluationResult& evaluation : in.evaluations) {
    if (evaluation.model() == "base" || !std::isfinite(evaluation.response().loss())) continue;
    if (best == nullptr || evaluation.response().loss() < best->response().loss())
      best = &evaluation;
    last = &evaluation;
  }
  if (best != nullptr && last->response().loss() > best->response().loss() + kOverfittingRise) {
    warn(absl::StrFormat(
        "Overfitting: the evaluation loss was lowest at step %s (%s) and rose to %s by step %s. %s "
        "Fewer epochs, more "
        "data or a lower learning_rate would help.",
        GroupedCount(best->step()), MeasuredNumber(best->response().loss()),
        MeasuredNumber(last->response().loss()), GroupedCount(last->step()),
        in.spec.load_best_model_at_end() ? "The weights of the best step were kept."
                                         : "The weights of the last step were kept."));
  }

  const double prompt_before = result.base().prompt().perplexity(),
               prompt_after = result.tuned().prompt().perplexity();
  if (prompt_before > 0 && prompt_after > prompt_before * kForgetting) {
    warn(absl::StrCat("Perplexity on the prompts rose from ", MeasuredNumber(prompt_before), " to ",
                      MeasuredNumber(prompt_after), " (",
                      PercentChange(prompt_before, prompt_after), "). Prompts are ",
                      in.spec.dataset().train_on_inputs() ? "" : "not ",
                      "trained on here; a large rise means that the model forgets other text. A "
                      "lower learning_rate, fewer steps or a ",
                      "smaller lora.r limit it."));
  }

  int64_t repeating = 0, equal = 0, answered = 0;
  for (const v1::GenerationSample& sample : result.samples()) {
    answered += !sample.tuned().empty();
    repeating += RepeatsItself(sample.tuned());
    equal += !sample.tuned().empty() && sample.tuned() == sample.base();
  }
  if (repeating > 0) {
    warn(absl::StrCat("The tuned model repeats a phrase over and over in ", repeating, " of ",
                      Plural(answered, "sample answer", "sample answers"),
                      ". Greedy answers do so before a model is trained enough; longer training or "
                      "a repetition_penalty helps."));
  }
  if (answered > 0 && equal == answered) {
    remark(
        "All sample answers of the tuned model equal the base model's: on these prompts the "
        "training changed nothing.");
  }

  if (in.dataset.overlap() > 0) {
    warn(
        absl::StrCat(Plural(in.dataset.overlap(), "validation sample is", "validation samples are"),
                     " also in the training data, so the evaluation is too favourable."));
  }
  if (in.dataset.validation_samples() == 0 && in.dataset.train_samples() > 0) {
    remark(
        "There was no validation data: nothing here says how the model does on text it was not "
        "trained on.");
  }
  if (in.dataset.truncated() > 0) {
    remark(
        absl::StrFormat("%s (%.1f %%) were longer than max_seq_length and lost their end.",
                        Plural(in.dataset.truncated(), "sample", "samples"),
                        100.0 * static_cast<double>(in.dataset.truncated()) /
                            static_cast<double>(std::max<int64_t>(
                                1, in.dataset.train_samples() + in.dataset.validation_samples()))));
  }
  if (measured >= kFewSteps && 2 * clipped > measured) {
    remark(absl::StrFormat(
        "The gradient was clipped to max_grad_norm (%s) in %s of %s steps, so most updates were "
        "smaller than the "
        "learning rate asks for.",
        ShortNumber(in.spec.max_grad_norm()), GroupedCount(clipped), GroupedCount(measured)));
  }
  const double peak = static_cast<double>(result.peak_device_bytes());
  const double predicted = static_cast<double>(result.predicted_peak_bytes());
  if (predicted > 0 && peak > 1.25 * predicted) {
    remark(absl::StrCat("Memory peaked at ", BytesText(result.peak_device_bytes()),
                        ", over the predicted ", BytesText(result.predicted_peak_bytes()), "."));
  }
  for (const std::string& warning : in.dataset.warnings()) remark(absl::StrCat("Data: ", warning));
  std::stable_partition(findings.begin(), findings.end(),
                        [](const ReportFinding& f) { return f.warning; });
  return findings;
}

}  // namespace finetuned
