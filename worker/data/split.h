// The seeded random split: samples of one group stay on one side.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace finetuned {

// What ties samples together: equal content, or the same conversation_id.
struct SplitKey {
  uint64_t content = 0;
  uint64_t conversation = 0;  // 0: none
};

// Place of a sample in the seeded order by which groups are drawn; smallest first.
uint64_t SelectionRank(const SplitKey& key, uint64_t seed);

struct SplitResult {
  std::vector<uint32_t> train;       // sample indices, ascending
  std::vector<uint32_t> validation;  // in seeded order, so that its first n are a random subset
};

// Groups are the connected sets of samples that share a key. They are drawn in the order of their
// smallest SelectionRank into the validation side while they fit into round(fraction · samples),
// which is at least 1 when there are two groups or more and the fraction is above 0. When none
// fits, the smallest group is taken. One group always stays in training. Depends on keys and seed
// alone, not on the order of the samples (but for equal ranks).
SplitResult SplitRandomly(absl::Span<const SplitKey> samples, double fraction, uint64_t seed);

// At most `cap` of `train`, the first in seeded order; ascending again.
std::vector<uint32_t> CapSamples(absl::Span<const SplitKey> samples, std::vector<uint32_t> train,
                                 int64_t cap, uint64_t seed);

// Validation samples whose content is also in training.
int64_t CountOverlap(absl::Span<const SplitKey> samples, const SplitResult& split);

}  // namespace finetuned
