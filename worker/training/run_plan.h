// The course of a training run: which micro-batches make which update, and when to evaluate and save. A pure function of
// the resolved spec and the sample lengths, so that a resumed run follows the same course.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "finetuned/v1/job_spec.pb.h"
#include "worker/data/batches.h"

namespace finetuned {

class RunPlan {
 public:
  // train_lengths: tokens of each training sample. eval_tokens: tokens of one evaluation at eval_steps.
  // `spec` resolved: batch size and accumulation are numbers. Precondition: at least one sample.
  RunPlan(const v1::JobSpec& spec, std::vector<int32_t> train_lengths, int64_t eval_tokens);

  // One optimizer update: its epoch (from 0) and micro-batches. The last window of an epoch may be partial.
  struct Window {
    int64_t epoch = 0;
    absl::Span<const MicroBatch> micro_batches;
  };
  // Update with this 0-based index; updates are asked for in rising order. The span lives until another epoch is asked
  // for.
  Window At(int64_t update);

  int64_t total_steps() const { return total_steps_; }
  int64_t steps_in_epoch(int64_t epoch) const;
  int64_t epochs() const { return static_cast<int64_t>(epoch_end_.size()); }
  // Epochs done after `step` updates, fractional.
  double EpochAt(int64_t step) const;
  // True when `step` updates end an epoch (or the run).
  bool EndsEpoch(int64_t step) const;
  // Evaluation after this many updates? The end is always evaluated.
  bool EvaluatesAt(int64_t step) const;
  int64_t eval_steps() const { return eval_steps_; }

 private:
  const EpochBatches& Epoch(int64_t epoch);

  BatchOptions options_;
  std::vector<int32_t> lengths_;
  int64_t accumulation_;
  int64_t total_steps_ = 0;
  std::vector<int64_t> epoch_end_;  // updates done at the end of each epoch
  std::vector<int64_t> epoch_full_;  // updates of the whole epoch, also where the run stops inside it
  int64_t eval_steps_ = 0;           // 0: by epoch or never
  bool eval_by_epoch_ = false;
  int64_t cached_epoch_ = -1;
  EpochBatches cached_;
};

}  // namespace finetuned
