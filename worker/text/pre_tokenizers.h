// Pre-tokenizers of a tokenizer.json: how normalized text is cut into the words that the model sees
// one by one.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "worker/text/aligned_text.h"

namespace finetuned {

// One step: cuts the spans of `tokens` further and may rewrite the text. Const and thread-safe.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void Apply(PreTokens& tokens) const = 0;
};

// A whole `pre_tokenizer` value.
struct PreTokenization {
  std::unique_ptr<PreTokenizer> pre_tokenizer;  // null for JSON null
  // The last step is ByteLevel and was asked to leave the bytes as they are: spans are raw bytes,
  // and the model is to spell them in the byte-level alphabet itself.
  bool raw_bytes = false;
  // A step asks where in the original text a span begins (Metaspace with prepend_scheme "first").
  bool needs_origin = false;
  // Name of the family in llama.cpp's `tokenizer.ggml.pre`; empty when none is known to be equal.
  std::string family;
};

// Builds BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, FixedLength, Metaspace,
// Punctuation, Sequence, Split, UnicodeScripts, Whitespace, WhitespaceSplit. `prefer_raw_bytes`
// leaves the mapping to the byte-level alphabet to the model where that is possible (see
// raw_bytes). UNIMPLEMENTED names an unknown type, INVALID_ARGUMENT a bad field.
absl::StatusOr<PreTokenization> MakePreTokenizer(const nlohmann::json& value,
                                                 const std::string& path, bool prefer_raw_bytes);

}  // namespace finetuned
