#include "worker/training/run_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace finetuned {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kMinAutoEvalSteps = 10;
// A forward pass over a frozen base costs about half of forward and backward (no weight gradients are formed).
constexpr double kForwardShare = 0.5;

}  // namespace

RunPlan::RunPlan(const v1::JobSpec& spec, std::vector<int32_t> train_lengths, int64_t eval_tokens)
    : lengths_(std::move(train_lengths)) {
  options_.packing = spec.packing();
  options_.max_seq_length = spec.max_seq_length();
  options_.rows = spec.per_device_train_batch_size().value();
  options_.seed = spec.seed();
  accumulation_ = spec.gradient_accumulation_steps().value();

  const bool by_steps = spec.has_max_steps();
  const double epochs = by_steps ? std::numeric_limits<double>::infinity() : spec.num_train_epochs();
  for (int64_t epoch = 0; static_cast<double>(epoch) < epochs; ++epoch) {
    const int64_t full = std::max<int64_t>(
        1, CeilDiv(static_cast<int64_t>(Epoch(epoch).batches.size()), accumulation_));
    int64_t taken = full;
    const double left = epochs - static_cast<double>(epoch);
    if (left < 1) taken = static_cast<int64_t>(std::ceil(left * static_cast<double>(full)));
    if (by_steps) taken = std::min(taken, spec.max_steps() - total_steps_);
    total_steps_ += taken;
    epoch_end_.push_back(total_steps_);
    epoch_full_.push_back(full);
    if (by_steps && total_steps_ >= spec.max_steps()) break;
  }

  eval_by_epoch_ = spec.eval_strategy() == "epoch";
  if (spec.eval_strategy() == "steps" && eval_tokens > 0) {
    if (spec.eval_steps().has_value()) {
      eval_steps_ = spec.eval_steps().value();
    } else {
      // A quarter of an epoch, stretched until evaluation keeps to its share of the time. Counted in tokens, not in
      // seconds, so that the course of a run does not depend on how fast the machine happens to be.
      eval_steps_ = std::max(kMinAutoEvalSteps, epoch_full_.front() / 4);
      const int64_t epoch_tokens = std::accumulate(lengths_.begin(), lengths_.end(), int64_t{0});
      const double step_tokens = static_cast<double>(epoch_tokens) / static_cast<double>(epoch_full_.front());
      const double budget = spec.evaluation().budget_fraction();
      if (budget > 0) {
        const double least = kForwardShare * static_cast<double>(eval_tokens) / (budget * step_tokens);
        eval_steps_ = std::max(eval_steps_, static_cast<int64_t>(std::ceil(least)));
      }
    }
  }
}

const EpochBatches& RunPlan::Epoch(int64_t epoch) {
  if (cached_epoch_ != epoch) {
    cached_ = MakeTrainBatches(lengths_, options_, epoch);
    cached_epoch_ = epoch;
  }
  return cached_;
}

RunPlan::Window RunPlan::At(int64_t update) {
  const auto end = std::upper_bound(epoch_end_.begin(), epoch_end_.end(), update);
  const int64_t epoch = end - epoch_end_.begin();
  const int64_t start = epoch == 0 ? 0 : epoch_end_[static_cast<size_t>(epoch) - 1];
  const std::vector<MicroBatch>& batches = Epoch(epoch).batches;
  const size_t first = static_cast<size_t>((update - start) * accumulation_);
  const size_t count = std::min(static_cast<size_t>(accumulation_), batches.size() - first);
  return {epoch, absl::MakeConstSpan(batches).subspan(first, count)};
}

int64_t RunPlan::steps_in_epoch(int64_t epoch) const {
  return epoch_full_.at(static_cast<size_t>(epoch));
}

double RunPlan::EpochAt(int64_t step) const {
  int64_t start = 0;
  for (size_t epoch = 0; epoch < epoch_end_.size(); ++epoch) {
    if (step <= epoch_end_[epoch]) {
      return static_cast<double>(epoch) +
             static_cast<double>(step - start) / static_cast<double>(epoch_full_[epoch]);
    }
    start = epoch_end_[epoch];
  }
  return static_cast<double>(epoch_end_.size());
}

bool RunPlan::EndsEpoch(int64_t step) const {
  return std::binary_search(epoch_end_.begin(), epoch_end_.end(), step);
}

bool RunPlan::EvaluatesAt(int64_t step) const {
  if (step == total_steps_) return true;
  if (eval_by_epoch_) return EndsEpoch(step);
  return eval_steps_ > 0 && step % eval_steps_ == 0;
}

}  // namespace finetuned
