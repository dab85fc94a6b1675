#include "worker/evaluation/batch_builder.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace finetuned {

Batch BuildBatch(const TokenStore& store, const MicroBatch& micro_batch, Targets targets, at::Device device) {
  int64_t tokens = 0;
  for (const auto& row : micro_batch.rows) {
    for (uint32_t index : row) tokens += static_cast<int64_t>(store.Sample(index).input_ids.size());
  }
  // Pinned memory lets the copy to a GPU overlap with the work queued there.
  const auto options = at::TensorOptions(at::kLong).pinned_memory(device.is_cuda());
  at::Tensor ids = at::empty({tokens}, options);
  at::Tensor positions = at::empty({tokens}, options);
  at::Tensor labels = at::empty({tokens}, options);
  int64_t* id = ids.data_ptr<int64_t>();
  int64_t* position = positions.data_ptr<int64_t>();
  int64_t* label = labels.data_ptr<int64_t>();

  Batch batch;
  batch.cu_seqlens.push_back(0);
  int64_t at = 0;
  for (const auto& row : micro_batch.rows) {
    for (uint32_t index : row) {
      const SampleView sample = store.Sample(index);
      const int64_t length = static_cast<int64_t>(sample.input_ids.size());
      for (int64_t i = 0; i < length; ++i, ++at) {
        id[at] = sample.input_ids[static_cast<size_t>(i)];
        position[at] = i;
        const bool target = i + 1 < length && (targets == Targets::kAllTokens || sample.trained[static_cast<size_t>(i) + 1] != 0);
        label[at] = target ? sample.input_ids[static_cast<size_t>(i) + 1] : kIgnoreIndex;
        batch.target_count += target;
      }
      batch.cu_seqlens.push_back(at);
      batch.max_seqlen = std::max(batch.max_seqlen, length);
    }
  }
  const bool non_blocking = device.is_cuda();
  batch.input_ids = ids.to(device, non_blocking);
  batch.position_ids = positions.to(device, non_blocking);
  batch.targets = labels.to(device, non_blocking);
  return batch;
}

int64_t CountTargets(const TokenStore& store, const MicroBatch& micro_batch) {
  int64_t count = 0;
  for (const auto& row : micro_batch.rows) {
    for (uint32_t index : row) {
      const SampleView sample = store.Sample(index);
      if (sample.trained.empty()) continue;
      // The first token of a document has nothing before it to be predicted from.
      count += std::count_if(sample.trained.begin() + 1, sample.trained.end(), [](uint8_t t) { return t != 0; });
    }
  }
  return count;
}

std::vector<int32_t> SampleLengths(const TokenStore& store) {
  std::vector<int32_t> lengths(store.size());
  for (size_t i = 0; i < lengths.size(); ++i) {
    lengths[i] = static_cast<int32_t>(store.Sample(i).input_ids.size());
  }
  return lengths;
}

}  // namespace finetuned
