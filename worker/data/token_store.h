// Tokenized samples as training reads them.
#pragma once

#include <cstdint>
#include <string_view>

#include "absl/types/span.h"

namespace finetuned {

// One tokenized sample; spans point into the memory map and live as long as the TokenStore.
struct SampleView {
  absl::Span<const int32_t> input_ids;
  // Same length; 1 where the token is a label, 0 where it is masked (−100). The first token is
  // always 0: nothing comes before it from which it could be predicted.
  absl::Span<const uint8_t> trained;
  std::string_view sample_id;
};

// Read-only, memory-mapped samples of one side of the split. Thread-safe.
class TokenStore {
 public:
  virtual ~TokenStore() = default;
  virtual size_t size() const = 0;
  virtual SampleView Sample(size_t index) const = 0;
  virtual int64_t total_tokens() const = 0;
  virtual int64_t trained_tokens() const = 0;
};

}  // namespace finetuned
