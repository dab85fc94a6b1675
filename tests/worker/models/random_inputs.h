// Random batches, adapter settings and adapter weights for tests of models.
#pragma once

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <string>
#include <vector>

#include "finetuned/v1/job_spec.pb.h"
#include "worker/adapters/lora.h"
#include "worker/nn/batch.h"

namespace finetuned {

inline v1::Lora LoraSpec(int64_t r, const std::vector<std::string>& targets = {}, double dropout = 0) {
  v1::Lora spec;
  spec.mutable_r()->set_value(r);
  spec.mutable_alpha()->set_value(2.0 * static_cast<double>(r));
  spec.mutable_dropout()->set_value(dropout);
  for (const std::string& target : targets) spec.add_target_modules(target);
  return spec;
}

// Values for B other than zero.
inline void RandomB(LoraAdapters& adapters, double deviation) {
  const at::NoGradGuard no_grad;
  for (AdapterParameter& parameter : adapters.parameters()) {
    if (parameter.name.find("lora_B") != std::string::npos) parameter.tensor.normal_(0, deviation);
  }
}

// Documents of the given lengths; each position has a target with probability `trained`. Seeds torch's
// generators.
inline Batch RandomBatch(const std::vector<int64_t>& lengths, int64_t vocabulary, double trained, uint64_t seed,
                         at::Device device = at::kCPU) {
  at::manual_seed(seed);
  Batch batch;
  batch.cu_seqlens = {0};
  std::vector<at::Tensor> positions, targets;
  for (int64_t length : lengths) {
    batch.cu_seqlens.push_back(batch.cu_seqlens.back() + length);
    batch.max_seqlen = std::max(batch.max_seqlen, length);
    positions.push_back(at::arange(length, at::kLong));
    at::Tensor target = at::randint(vocabulary, {length}, at::kLong);
    target.masked_fill_(at::rand({length}).gt(trained), kIgnoreIndex);
    target[length - 1] = kIgnoreIndex;
    targets.push_back(target);
  }
  const at::Tensor all = at::cat(targets);
  batch.target_count = all.ne(kIgnoreIndex).sum().item<int64_t>();
  batch.input_ids = at::randint(vocabulary, {batch.cu_seqlens.back()}, at::kLong).to(device);
  batch.position_ids = at::cat(positions).to(device);
  batch.targets = all.to(device);
  return batch;
}

}  // namespace finetuned
