// Words for what evaluations show: one for each evaluation during training, one line for the finished job.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "finetuned/v1/types.pb.h"

namespace finetuned {

// eval and train: (step, loss) at each evaluation so far, the newest last. patience ≤ 0: early stopping is off.
// "improving" | "plateau" | "overfitting", with the ratio eval/train and how many evaluations are left.
std::string TrainingVerdict(const std::vector<std::pair<int64_t, double>>& eval,
                            const std::vector<std::pair<int64_t, double>>& train, int64_t without_improvement,
                            int64_t patience);

// "improved: response perplexity 31.20 → 11.71 (−62.5 %) on 600 samples; verified: adapter, merged, gguf q8_0; ready to
// deploy", or why not. Reads base, tuned and exports of the result.
std::string JobVerdict(const v1::JobResult& result);

}  // namespace finetuned
