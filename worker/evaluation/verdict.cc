#include "worker/evaluation/verdict.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace finetuned {
namespace {

// Changes of perplexity below this share are noise of a few hundred samples, not a result.
constexpr double kUnchangedShare = 0.01;

}  // namespace

std::string TrainingVerdict(const std::vector<std::pair<int64_t, double>>& eval,
                            const std::vector<std::pair<int64_t, double>>& train, int64_t without_improvement,
                            int64_t patience) {
  if (eval.size() < 2) return "first evaluation";
  const double change = eval.back().second - eval[eval.size() - 2].second;
  const double train_change = train.back().second - train[train.size() - 2].second;
  // Noise of the series itself: half the median step of the evaluations so far, at least a thousandth of the loss.
  std::vector<double> steps;
  for (size_t i = 1; i < eval.size(); ++i) steps.push_back(std::abs(eval[i].second - eval[i - 1].second));
  std::nth_element(steps.begin(), steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2), steps.end());
  const double noise = std::min(0.1 * steps[steps.size() / 2], 0.01) + 1e-3 * std::abs(eval.back().second);
  std::string verdict;
  if (change < -noise) {
    verdict = "improving";
  } else if (change > noise && train_change < 0) {
    verdict = "overfitting";
  } else if (change > noise) {
    verdict = "worse";
  } else {
    verdict = "plateau";
  }
  absl::StrAppend(&verdict, absl::StrFormat(", eval/train loss %.2f", eval.back().second / train.back().second));
  if (without_improvement > 0 && patience > 0) {
    absl::StrAppend(&verdict, absl::StrFormat(", not improved for %d evaluation%s, stops in %d more", without_improvement,
                                              without_improvement == 1 ? "" : "s",
                                              std::max<int64_t>(0, patience - without_improvement)));
  }
  return verdict;
}

std::string JobVerdict(const v1::JobResult& result) {
  std::string line;
  bool better = false, measured = false;
  if (result.has_base() && result.has_tuned() && result.tuned().response().tokens() > 0) {
    measured = true;
    const double before = result.base().response().perplexity(), after = result.tuned().response().perplexity();
    const double change = after / before - 1;
    better = change < -kUnchangedShare;
    const char* word = better ? "improved" : change > kUnchangedShare ? "regressed" : "unchanged";
    line = absl::StrFormat("%s: response perplexity %.2f → %.2f (%+.1f %%) on %d samples", word, before, after, 100 * change,
                           result.tuned().samples());
  } else {
    line = "not compared with the base model: no validation samples or no baseline";
  }
  std::vector<std::string> exports;
  for (const v1::VerifiedExport& verified : result.exports()) exports.push_back(verified.name());
  if (!exports.empty()) absl::StrAppend(&line, "; verified: ", absl::StrJoin(exports, ", "));
  if (!measured) {
    absl::StrAppend(&line, "; evaluate before deploying");
  } else if (!better) {
    absl::StrAppend(&line, "; not ready to deploy: the tuned model is not better than the base on the validation samples");
  } else {
    absl::StrAppend(&line, "; ready to deploy");
  }
  return line;
}

}  // namespace finetuned
