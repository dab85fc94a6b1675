// Tokens, scores and merges of a tokenizer.json in llama.cpp's terms. Used by gguf_tokenizer.cc
// alone.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/text/tokenizer.h"

namespace finetuned {

// llama.cpp's token types (enum llama_token_type).
enum GgufTokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct GgufVocabulary {
  std::string model;                // "gpt2" or "llama"
  std::string pre;                  // tokenizer.ggml.pre
  std::vector<std::string> tokens;  // by id, distinct
  std::vector<int32_t> types;       // GgufTokenType
  std::vector<float> scores;        // "llama" alone
  std::vector<std::string> merges;  // "gpt2" alone: "left right"
  bool add_space_prefix = false;    // "llama" alone
  std::vector<std::string> notes;
};

// `json` is the parsed file that `tokenizer` was made from. Errors as ReadGgufTokenizer.
absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const nlohmann::json& json,
                                                  const Tokenizer& tokenizer, int64_t rows);

}  // namespace finetuned
