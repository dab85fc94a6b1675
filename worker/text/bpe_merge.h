// Byte-pair merging, which all BPE models share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "worker/text/pair_table.h"

namespace finetuned {

// A token on its way: id and bytes of the word it covers.
struct BpeSymbol {
  int32_t id;
  uint32_t length;
};

// Merges the pair of least rank, of equal ranks the leftmost, until there is none left. Time is
// O(n log n) in the number of symbols.
void MergeSymbols(const PairTable& pairs, std::vector<BpeSymbol>& symbols);

// Neighbours that some merge may join, as a hash table without keys: a pair that shares another's
// place is taken for one. Between others a text can be cut before it is merged.
class JointTable {
 public:
  void Add(char32_t left, char32_t right) { joints_[PlaceOf(left, right)] = true; }
  // False when no merge reaches across the boundary between `left` and `right`.
  bool MayJoin(char32_t left, char32_t right) const { return joints_[PlaceOf(left, right)]; }

 private:
  static constexpr int kBits = 20;
  static size_t PlaceOf(char32_t left, char32_t right) {
    return ((uint64_t{left} << 21 | right) * 0x9E3779B97F4A7C15u) >> (64 - kBits);
  }
  std::vector<bool> joints_ = std::vector<bool>(size_t{1} << kBits, false);
};

}  // namespace finetuned
