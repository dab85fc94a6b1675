// Quality filters over conversations. Each is conservative: when in doubt the record stays.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "finetuned/v1/job_spec.pb.h"
#include "worker/data/conversation.h"

namespace finetuned {

// Characters are code points of stripped text. Limits on instructions apply to user turns (the
// longest one; all of them together for the minimum), limits on responses to assistant turns (each
// one; a turn with tool calls may be empty) and to plain text.
struct FilterOptions {
  int64_t min_instruction_chars = 1, min_response_chars = 1;
  std::optional<int64_t> max_instruction_chars, max_response_chars;
  double min_quality_score = 0;
  bool encoding_damage = true;
  bool repetition = true;

  static FilterOptions FromSpec(const v1::Filters& filters);
};

// OK, or BadRecord: "empty_instruction", "empty_response", "short_instruction", "short_response",
// "long_instruction", "long_response", "low_quality", "encoding_damage", "repetition",
// "symbol_spam".
absl::Status CheckFilters(const Conversation& conversation, const FilterOptions& options);

// True for U+FFFD, control characters other than tab and line ends, or UTF-8 that was read as
// Latin-1 or Windows-1252
// ("Ã©", "â€™"): at least three places, or one in 50 characters.
bool HasEncodingDamage(std::string_view text);

// What is wrong with a text that repeats itself or is nearly all symbols: "repetition",
// "symbol_spam" or empty. repetition: one character 200 times in a row; one line that makes up over
// 70 % of at least 8 lines; one run of four words that covers over half of at least 50 words.
// symbol_spam: at least 40 characters of which under a tenth are letters or digits.
std::string_view FindSpam(std::string_view text);

// Remembers 128 bits of SHA-256 for each text: 10 million records need about 350 MB.
class SeenTexts {
 public:
  // False when an equal text was added before.
  bool Add(std::string_view text);
  bool Contains(std::string_view text) const;
  size_t size() const { return hashes_.size(); }

 private:
  absl::flat_hash_set<std::pair<uint64_t, uint64_t>> hashes_;
};

}  // namespace finetuned
