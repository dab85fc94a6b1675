// absl::StrCat for std::string_view too: Debian builds abseil for C++14, where absl::string_view is
// a type of its own.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace finetuned::jinja {

inline absl::string_view Piece(std::string_view text) { return {text.data(), text.size()}; }
inline absl::string_view Piece(const std::string& text) { return {text.data(), text.size()}; }
inline absl::string_view Piece(const char* text) { return text; }
template <typename Number>
Number Piece(Number number) {
  return number;
}

template <typename... Parts>
std::string Cat(const Parts&... parts) {
  return absl::StrCat(Piece(parts)...);
}

}  // namespace finetuned::jinja
