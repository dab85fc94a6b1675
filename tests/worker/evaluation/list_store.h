// Samples in memory, as a TokenStore.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/data/token_store.h"

namespace finetuned {

struct ListedSample {
  std::vector<int32_t> ids;
  std::vector<uint8_t> trained;  // same length
};

class ListStore : public TokenStore {
 public:
  explicit ListStore(std::vector<ListedSample> samples) : samples_(std::move(samples)) {}
  size_t size() const override { return samples_.size(); }
  SampleView Sample(size_t i) const override {
    return {samples_[i].ids, samples_[i].trained, "sample"};
  }
  int64_t total_tokens() const override { return 0; }
  int64_t trained_tokens() const override { return 0; }

 private:
  std::vector<ListedSample> samples_;
};

}  // namespace finetuned
