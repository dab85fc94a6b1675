#include "worker/text/chars_map.h"

#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

// A unit of Darts-clone: the byte that leads to it, where its children are, whether a key ends at
// it; or the value of a key.
uint32_t LabelOf(uint32_t unit) { return unit & (1u << 31 | 0xFF); }
uint32_t OffsetOf(uint32_t unit) { return (unit >> 10) << ((unit & 1u << 9) >> 6); }
bool EndsKey(uint32_t unit) { return unit >> 8 & 1; }
uint32_t ValueOf(uint32_t unit) { return unit & ((1u << 31) - 1); }

}  // namespace

absl::StatusOr<CharsMap> CharsMap::Parse(std::string_view bytes) {
  uint32_t size = 0;
  if (bytes.size() < sizeof size) return absl::InvalidArgumentError("is shorter than 4 bytes");
  std::memcpy(&size, bytes.data(), sizeof size);
  bytes.remove_prefix(sizeof size);
  if (size > bytes.size() || size % sizeof(uint32_t) != 0 || size == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("says its trie has ", size, " bytes, but has ", bytes.size(), " altogether"));
  }
  CharsMap map;
  map.units_.resize(size / sizeof(uint32_t));
  std::memcpy(map.units_.data(), bytes.data(), size);
  map.replacements_ = std::string(bytes.substr(size));
  if (unicode::ValidUtf8Prefix(map.replacements_) != map.replacements_.size())
    return absl::InvalidArgumentError("holds replacements that are not UTF-8");
  return map;
}

std::optional<std::string_view> CharsMap::Match(std::string_view text, bool longest,
                                                size_t* length) const {
  std::optional<uint32_t> value;
  size_t at = OffsetOf(units_[0]);
  for (size_t i = 0; i < text.size() && text[i] != '\0'; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    at ^= byte;
    if (at >= units_.size() || LabelOf(units_[at]) != byte) break;
    const bool ends = EndsKey(units_[at]);
    at ^= OffsetOf(units_[at]);
    if (!ends) continue;
    if (at >= units_.size()) break;
    value = ValueOf(units_[at]);
    if (length != nullptr) *length = i + 1;
    if (!longest) break;
  }
  // Replacements begin at characters, so that what is returned is UTF-8 whatever the file says.
  if (!value.has_value() || *value > replacements_.size() ||
      (*value < replacements_.size() && (replacements_[*value] & 0xC0) == 0x80)) {
    return std::nullopt;
  }
  const std::string_view rest = std::string_view(replacements_).substr(*value);
  return rest.substr(0, rest.find('\0'));
}

}  // namespace finetuned
