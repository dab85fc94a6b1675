// Decoders of a tokenizer.json: how tokens become text again.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace finetuned {

// One step: turns the list of token strings into another; the text is all of them joined. Const and
// thread-safe.
class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual std::vector<std::string> Apply(std::vector<std::string> tokens) const = 0;
};

// Builds BPEDecoder, ByteFallback, ByteLevel, CTC, Fuse, Metaspace, Replace, Sequence, Strip,
// WordPiece; null pointer for JSON null. UNIMPLEMENTED names an unknown type, INVALID_ARGUMENT a
// bad field.
absl::StatusOr<std::unique_ptr<Decoder>> MakeDecoder(const nlohmann::json& value,
                                                     const std::string& path);

}  // namespace finetuned
