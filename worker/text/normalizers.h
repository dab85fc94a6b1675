// Normalizers of a tokenizer.json: what happens to text before it is cut into pre-tokens.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "worker/text/aligned_text.h"

namespace finetuned {

// One step. Const and thread-safe.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void Apply(AlignedText& text) const = 0;
};

// The normalizer that the JSON value describes: BertNormalizer, NFC, NFD, NFKC, NFKD, Lowercase,
// Strip, StripAccents, Nmt, Precompiled, Prepend, Replace, ByteLevel, Sequence; null pointer for
// JSON null. UNIMPLEMENTED
// names an unknown type, INVALID_ARGUMENT a bad field. `path` is the value's place in the file, for
// errors.
absl::StatusOr<std::unique_ptr<Normalizer>> MakeNormalizer(const nlohmann::json& value,
                                                           const std::string& path);

}  // namespace finetuned
