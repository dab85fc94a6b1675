// Regular expressions as Hugging Face `tokenizers` runs them: Oniguruma, Ruby syntax, over UTF-8.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/text/aligned_text.h"

struct re_pattern_buffer;

namespace finetuned {

// A compiled pattern. Thread-safe: every search has match registers of its own.
//
// Properties (\p{L}, \w, \d …) are those of the Oniguruma inside the PyPI package, whatever the
// Unicode version of the library this links: they are replaced by explicit ranges before compiling
// (see unicode::PropertyRanges).
class Regex {
 public:
  // INVALID_ARGUMENT with Oniguruma's reason when the pattern is wrong.
  static absl::StatusOr<std::unique_ptr<Regex>> Compile(std::string_view pattern);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // Appends all matches, leftmost first and without overlap. An empty match directly after a match
  // is skipped, as Rust's `onig` crate does.
  void FindAll(std::string_view text, std::vector<Span>& matches) const;

 private:
  explicit Regex(re_pattern_buffer* compiled) : compiled_(compiled) {}
  re_pattern_buffer* const compiled_;
};

// The pattern with its properties written out as ranges; exposed for tests.
std::string ExpandProperties(std::string_view pattern);

}  // namespace finetuned
