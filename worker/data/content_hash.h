// Hashes of contents that decide identity and order; stable across machines and versions.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>

namespace finetuned {

// The first 128 bits of SHA-256, big-endian.
std::pair<uint64_t, uint64_t> HashText(std::string_view text);

// SplitMix64: a bijection of 64 bits that scatters.
inline uint64_t Mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace finetuned
