// Merge rules by the pair of token ids they join: the hottest look-up of tokenizing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace finetuned {

// A fixed hash table, open addressing, at most half full.
class PairTable {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;
  struct Merge {
    uint32_t rank = kNone;  // place in the list of merges
    int32_t result = -1;    // id of the joined token
  };

  // Empties the table and makes room for `count` pairs.
  void Reset(size_t count) {
    shift_ = 60;
    while ((size_t{1} << (64 - shift_)) < count * 2) --shift_;
    slots_.assign(size_t{1} << (64 - shift_), Slot{});
  }
  // A pair that is there already gets the new merge.
  void Insert(int32_t left, int32_t right, Merge merge) {
    slots_[Locate(Key(left, right))] = {Key(left, right), merge};
  }
  // rank kNone when there is no such rule. REQUIRES: Reset() was called.
  Merge Find(int32_t left, int32_t right) const { return slots_[Locate(Key(left, right))].merge; }

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge;
  };

  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t Locate(uint64_t key) const {
    size_t slot = (key * 0x9E3779B97F4A7C15u) >> shift_;
    while (slots_[slot].key != key && slots_[slot].key != kEmpty)
      slot = (slot + 1) & (slots_.size() - 1);
    return slot;
  }

  int shift_ = 60;
  std::vector<Slot> slots_;
};

}  // namespace finetuned
