// From sample indices to a Batch of tensors on the model's device.
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/data/batches.h"
#include "worker/data/prepared_data.h"
#include "worker/nn/batch.h"

namespace finetuned {

enum class Targets {
  kTrained,   // only tokens the loss mask marks
  kAllTokens  // every token but the first of each document (evaluation of prompt and overall perplexity)
};

// Documents in the order of micro_batch.rows. Deterministic; copies from the memory map.
Batch BuildBatch(const TokenStore& store, const MicroBatch& micro_batch, Targets targets, at::Device device);

// Trained target positions of a micro-batch without building it: what the loss of an update is divided by.
int64_t CountTargets(const TokenStore& store, const MicroBatch& micro_batch);

std::vector<int32_t> SampleLengths(const TokenStore& store);

}  // namespace finetuned
