// Text helpers of proto/spec; not for use outside.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace finetuned {

// Debian builds abseil with a string_view of its own.
inline absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// Text in quotes for a message, cut where it is long.
inline std::string Shown(std::string_view text) {
  if (text.size() > 80) return absl::StrCat("'", View(text.substr(0, 77)), "…'");
  return absl::StrCat("'", View(text), "'");
}

}  // namespace finetuned
