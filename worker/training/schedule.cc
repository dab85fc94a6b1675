#include "worker/training/schedule.h"

#include <algorithm>
#include <cmath>

namespace finetuned {
namespace {

// transformers ends a polynomial decay at this rate unless told otherwise.
constexpr double kPolynomialEnd = 1e-7;

}  // namespace

double Schedule::At(int64_t update) const {
  const double step = static_cast<double>(update);
  const double warmup = static_cast<double>(warmup_steps);
  const double total = static_cast<double>(total_steps);
  if (type == "constant") return peak;
  if (update < warmup_steps) return peak * (step / std::max(1.0, warmup));
  if (type == "constant_with_warmup") return peak;
  if (type == "linear") {
    const double factor = std::max(0.0, (total - step) / std::max(1.0, total - warmup));
    return peak * (factor * (1 - min_ratio) + min_ratio);
  }
  if (type == "polynomial") {
    const double end = min_ratio > 0 ? peak * min_ratio : kPolynomialEnd;
    if (update > total_steps || total_steps <= warmup_steps) return end;
    const double remaining = 1 - (step - warmup) / (total - warmup);
    return peak * (((peak - end) * remaining + end) / peak);
  }
  // cosine: half a period
  const double progress = std::min(1.0, (step - warmup) / std::max(1.0, total - warmup));
  const double factor = std::max(0.0, 0.5 * (1.0 + std::cos(M_PI * progress)));
  return peak * (factor * (1 - min_ratio) + min_ratio);
}

Schedule MakeSchedule(const v1::JobSpec& spec, int64_t total_steps) {
  Schedule schedule;
  schedule.type = spec.lr_scheduler_type();
  schedule.peak = spec.learning_rate();
  schedule.min_ratio = spec.min_lr_ratio();
  schedule.total_steps = total_steps;
  schedule.warmup_steps =
      spec.has_warmup_steps()
          ? spec.warmup_steps()
          : static_cast<int64_t>(std::ceil(spec.warmup_ratio() * static_cast<double>(total_steps)));
  return schedule;
}

}  // namespace finetuned
