// The `pattern` field of Split and Replace: a plain string or a regular expression.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/text/aligned_text.h"
#include "worker/text/json_fields.h"
#include "worker/text/regex.h"

namespace finetuned {

class Pattern {
 public:
  // Reads {"String": "…"} or {"Regex": "…"} from the component's `pattern` field.
  static absl::StatusOr<Pattern> FromJson(const JsonFields& component);

  // REQUIRES: `text` is not empty.
  static Pattern Literal(std::string text);

  // Appends all matches in `text`, leftmost first and without overlap.
  void FindAll(std::string_view text, std::vector<Span>& matches) const;

  // The source of a regular expression, empty for a plain string.
  const std::string& regex_source() const { return regex_source_; }

 private:
  std::string literal_;           // searched for when regex_ is null; never empty then
  std::unique_ptr<Regex> regex_;  // may be null
  std::string regex_source_;
};

}  // namespace finetuned
