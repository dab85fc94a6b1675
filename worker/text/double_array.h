// A trie over bytes as a double array (Aoe, 1989): which keys begin at a place of a text, one array
// access a byte.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace finetuned {

// Const use is thread-safe.
class DoubleArray {
 public:
  static constexpr uint32_t kRoot = 0;
  static constexpr uint32_t kNone = UINT32_MAX;

  // Keys with their values (>= 0); of equal keys the last one counts. Empty keys are left out.
  // Call once.
  void Build(std::vector<std::pair<std::string_view, int32_t>> keys);

  // The node that `byte` leads to from `node`, or kNone. REQUIRES: Build() was called.
  uint32_t Next(uint32_t node, unsigned char byte) const {
    const uint32_t to = units_[node].base + byte;
    return units_[to].parent == node ? to : kNone;
  }
  // Value of the key that ends at `node`; −1 when none does.
  int32_t Value(uint32_t node) const { return units_[node].value; }
  // The node at the end of `path` from the root, or kNone.
  uint32_t Walk(std::string_view path) const {
    uint32_t node = kRoot;
    for (size_t i = 0; i < path.size() && node != kNone; ++i)
      node = Next(node, static_cast<unsigned char>(path[i]));
    return node;
  }

 private:
  struct Unit {
    uint32_t base = 0;  // of the children: child of byte b stands at base + b
    uint32_t parent = kNone;
    int32_t value = -1;
  };
  std::vector<Unit> units_;  // always 256 longer than the last node's base
};

}  // namespace finetuned
