// JSON text → Value. simdjson first; what it refuses goes through a slower parser that also takes
// what Python writes (NaN, Infinity, integers of any size, lone surrogates) and says in words what
// is wrong and where.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/data/value.h"

namespace finetuned {

// Deepest nesting of lists and objects in one record.
inline constexpr int kMaxJsonDepth = 256;

class JsonParser {
 public:
  JsonParser();
  ~JsonParser();

  // One JSON value with white space around it. The Value and its views live until the next call.
  // NaN and infinities become null (absent); a lone surrogate becomes U+FFFD.
  // INVALID_ARGUMENT: "invalid_utf8: …", "too_deep: …" or "invalid_json: … at column N" (bytes,
  // from 1).
  absl::StatusOr<const Value*> Parse(std::string_view text);

  // The slower parser alone; exposed for the test that compares the two.
  absl::StatusOr<const Value*> ParseLeniently(std::string_view text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace finetuned
