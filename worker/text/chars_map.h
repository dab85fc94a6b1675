// SentencePiece's compiled character map (`precompiled_charsmap`): strings and what replaces them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace finetuned {

// Const use is thread-safe.
class CharsMap {
 public:
  // Reads the bytes: 32 bits of length, a Darts-clone double array of that length, replacements
  // ended by NUL. INVALID_ARGUMENT says what is wrong.
  static absl::StatusOr<CharsMap> Parse(std::string_view bytes);

  // What replaces the shortest key that `text` begins with, if one does.
  std::optional<std::string_view> ShortestMatch(std::string_view text) const {
    return Match(text, /*longest=*/false, nullptr);
  }
  // What replaces the longest key that `text` begins with, and the key's length.
  std::optional<std::string_view> LongestMatch(std::string_view text, size_t& length) const {
    return Match(text, /*longest=*/true, &length);
  }

 private:
  std::optional<std::string_view> Match(std::string_view text, bool longest, size_t* length) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace finetuned
