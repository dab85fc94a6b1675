// The ids of recently seen words, one cache a thread: most words of a text are repeats.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

namespace finetuned {

// Direct-mapped, 1 MB a thread, shared by all tokenizers of the thread. No locks; a thread never
// sees another's slots.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 26, kMaxIds = 8;

  // One cache line.
  struct alignas(64) Slot {
    uint32_t owner = 0;  // serial of the model; 0 for an empty slot
    uint8_t length = 0;
    uint8_t count = 0;
    char word[kMaxBytes] = {};
    int32_t ids[kMaxIds] = {};

    bool Holds(uint32_t serial, std::string_view key) const {
      return owner == serial && length == key.size() &&
             std::memcmp(word, key.data(), key.size()) == 0;
    }
    // Replaces what is here, unless there are more ids than fit.
    void Store(uint32_t serial, std::string_view key, const int32_t* values, size_t number) {
      if (number > kMaxIds) return;
      owner = serial;
      length = static_cast<uint8_t>(key.size());
      count = static_cast<uint8_t>(number);
      std::memcpy(word, key.data(), key.size());
      std::copy(values, values + number, ids);
    }
  };

  static bool Fits(std::string_view word) { return word.size() <= kMaxBytes; }

  // The one slot that `word` of this model may be in. REQUIRES: Fits(word).
  static Slot& SlotOf(uint32_t serial, std::string_view word) {
    thread_local const std::unique_ptr<Slot[]> slots(new Slot[kSlots]);
    uint64_t hash = serial * 0x9E3779B97F4A7C15u + word.size();
    const char* p = word.data();
    size_t left = word.size();
    for (; left >= 8; left -= 8, p += 8) {
      uint64_t eight;
      std::memcpy(&eight, p, 8);
      hash = Mix(hash ^ eight);
    }
    uint64_t rest = 0;
    std::memcpy(&rest, p, left);
    return slots[Mix(hash ^ rest) >> (64 - kSlotBits)];
  }

 private:
  static constexpr int kSlotBits = 14;
  static constexpr size_t kSlots = size_t{1} << kSlotBits;
  static uint64_t Mix(uint64_t x) {
    x *= 0xBF58476D1CE4E5B9u;
    return (x ^ x >> 32) * 0x94D049BB133111EBu;
  }
};

}  // namespace finetuned
