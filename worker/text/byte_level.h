// The byte-level alphabet of GPT-2: a printable character for every byte.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "worker/text/unicode.h"

namespace finetuned::byte_level {

// Bytes that print in Latin-1 stand for themselves, the 68 others for U+0100 and up, in order.
inline char32_t CharacterOf(unsigned char byte) {
  if ((byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD)) return byte;
  if (byte <= 0x20) return 0x100u + byte;
  if (byte <= 0xA0) return 0x100u + 33 + (byte - 0x7Fu);
  return 0x100 + 67;
}

// The byte that a character of the alphabet stands for.
inline std::optional<unsigned char> ByteOf(char32_t c) {
  if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD))
    return static_cast<unsigned char>(c);
  if (c >= 0x100 && c <= 0x120) return static_cast<unsigned char>(c - 0x100);
  if (c >= 0x121 && c <= 0x142) return static_cast<unsigned char>(c - 0x121 + 0x7F);
  if (c == 0x143) return 0xAD;
  return std::nullopt;
}

// Appends the bytes that `token` spells; false (and `out` as it was) when a character is not of the
// alphabet.
inline bool AppendBytes(std::string_view token, std::string& out) {
  const size_t before = out.size();
  for (size_t i = 0; i < token.size();) {
    const std::optional<unsigned char> byte = ByteOf(unicode::DecodeUtf8(token, i));
    if (!byte.has_value()) {
      out.resize(before);
      return false;
    }
    out.push_back(static_cast<char>(*byte));
  }
  return true;
}

}  // namespace finetuned::byte_level
