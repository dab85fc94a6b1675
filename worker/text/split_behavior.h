// What a splitting pre-tokenizer does with the delimiters it found.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "worker/text/aligned_text.h"

namespace finetuned {

// For the delimiter "-" in "the-final--countdown":
enum class SplitBehavior {
  kRemoved,             // the final countdown
  kIsolated,            // the - final - - countdown
  kMergedWithPrevious,  // the- final- - countdown
  kMergedWithNext,      // the -final - -countdown
  kContiguous,          // the - final -- countdown
};

// The behavior by its name in a tokenizer.json ("MergedWithNext").
std::optional<SplitBehavior> ParseSplitBehavior(std::string_view name);

// Cuts `span` at `matches` (ordered, inside `span`) and appends the non-empty pieces. `invert`
// takes what is between the matches for the delimiters.
void SplitAtMatches(Span span, const std::vector<Span>& matches, SplitBehavior behavior,
                    bool invert, std::vector<Span>& out);

}  // namespace finetuned
