#include "worker/data/content_hash.h"

#include <charconv>
#include <string>

#include "proto/base/sha256.h"

namespace finetuned {

std::pair<uint64_t, uint64_t> HashText(std::string_view text) {
  const std::string hex = Sha256Hex(text);
  std::pair<uint64_t, uint64_t> out;
  std::from_chars(hex.data(), hex.data() + 16, out.first, 16);
  std::from_chars(hex.data() + 16, hex.data() + 32, out.second, 16);
  return out;
}

}  // namespace finetuned
