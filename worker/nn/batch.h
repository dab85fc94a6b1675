// A micro-batch as tensors. Documents are laid end to end without padding: attention is block-diagonal over
// cu_seqlens and positions restart in each document, so packed rows and plain samples are one case.
//
// Shape letters used throughout worker/: t tokens of a micro-batch, d hidden size, f intermediate size, h query heads,
// k key/value heads, e head dimension, v vocabulary, r LoRA rank, n documents.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace finetuned {

struct Batch {
  at::Tensor input_ids;     // [t] int64, on the model's device
  at::Tensor position_ids;  // [t] int64, from 0 in each document
  // [t] int64: the token that position i is to predict (already shifted), −100 where nothing is trained. The last
  // position of a document is always −100.
  at::Tensor targets;
  std::vector<int64_t> cu_seqlens;  // n + 1 document boundaries, host; front 0, back t
  int64_t max_seqlen = 0;           // longest document
  int64_t target_count = 0;         // positions with a target
};

constexpr int64_t kIgnoreIndex = -100;

}  // namespace finetuned
