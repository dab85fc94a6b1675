#include "worker/text/double_array.h"

#include <algorithm>

namespace finetuned {
namespace {

// Keys [begin, end) share the path to `node`, `depth` bytes long.
struct Range {
  uint32_t node;
  size_t begin, end, depth;
};

}  // namespace

void DoubleArray::Build(std::vector<std::pair<std::string_view, int32_t>> keys) {
  std::stable_sort(keys.begin(), keys.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  units_.assign(1024, Unit());
  units_[kRoot].parent = kRoot;  // taken, and no child of its own: bases start at 1
  std::vector<Range> open = {{kRoot, 0, keys.size(), 0}};
  std::vector<std::pair<unsigned char, size_t>> children;  // byte, first key
  size_t search_from = 1;                                  // hardly a free unit stands before it
  while (!open.empty()) {
    const Range range = open.back();
    open.pop_back();
    size_t key = range.begin;
    for (; key < range.end && keys[key].first.size() == range.depth; ++key) {
      if (range.depth > 0) units_[range.node].value = keys[key].second;
    }
    children.clear();
    for (; key < range.end; ++key) {
      const auto byte = static_cast<unsigned char>(keys[key].first[range.depth]);
      if (children.empty() || children.back().first != byte) children.emplace_back(byte, key);
    }
    units_[range.node].base = 1;
    if (children.empty()) continue;
    // The first place where all children find free units.
    size_t taken = 0, first = std::max<size_t>(search_from, size_t{1} + children[0].first);
    const size_t started = first;
    for (bool found = false; !found; ++first) {
      if (first + 512 > units_.size()) units_.resize(units_.size() * 2);
      if (units_[first].parent != kNone) {
        ++taken;
        continue;
      }
      const size_t base = first - children[0].first;
      found = std::all_of(children.begin(), children.end(), [&](const auto& child) {
        return units_[base + child.first].parent == kNone;
      });
      if (found) break;
    }
    if (taken * 20 >= (first - started + 1) * 19) search_from = first;
    const size_t base = first - children[0].first;
    units_[range.node].base = static_cast<uint32_t>(base);
    for (size_t i = 0; i < children.size(); ++i) {
      const auto node = static_cast<uint32_t>(base + children[i].first);
      units_[node].parent = range.node;
      const size_t end = i + 1 < children.size() ? children[i + 1].second : range.end;
      open.push_back({node, children[i].second, end, range.depth + 1});
    }
  }
  size_t used = units_.size();
  while (used > 1 && units_[used - 1].parent == kNone) --used;
  units_.resize(used + 256);
  units_.shrink_to_fit();
}

}  // namespace finetuned
