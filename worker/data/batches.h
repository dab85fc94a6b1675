// Which samples make which micro-batch: a pure function of lengths, options, seed and epoch.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace finetuned {

struct BatchOptions {
  bool packing = true;
  int64_t max_seq_length = 2048;  // tokens of a packed row
  int64_t rows = 1;               // rows (packed) or samples (not packed) of a micro-batch
  // Without packing: a micro-batch is cut short rather than exceed this many tokens; 0 = rows ·
  // max_seq_length.
  int64_t max_tokens = 0;
  uint64_t seed = 42;
};

// Samples of one micro-batch, in the order they are laid out. With packing they are grouped in
// rows.
struct MicroBatch {
  std::vector<std::vector<uint32_t>> rows;  // each: sample indices that share a row
};

struct EpochBatches {
  std::vector<MicroBatch> batches;
  int64_t rows = 0;               // packed rows (or samples) in the epoch
  double packing_efficiency = 1;  // tokens over rows · max_seq_length; 1 without packing
};

// Training order of one epoch. Best-fit-decreasing packing over windows of a seeded shuffle; row
// order shuffled by (seed, epoch). Every sample appears exactly once. `lengths` in tokens, each ≤
// max_seq_length.
EpochBatches MakeTrainBatches(absl::Span<const int32_t> lengths, const BatchOptions& options,
                              int64_t epoch);

// Evaluation order: by length, then index, so that a result never depends on seed or epoch.
EpochBatches MakeEvalBatches(absl::Span<const int32_t> lengths, const BatchOptions& options);

}  // namespace finetuned
