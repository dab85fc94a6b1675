#include "worker/text/bpe_merge.h"

#include <algorithm>
#include <functional>
#include <queue>

namespace finetuned {
namespace {

// Up to this many symbols a scan for the best pair is faster than a heap.
constexpr size_t kShortWord = 48;

void MergeShort(const PairTable& pairs, std::vector<BpeSymbol>& symbols) {
  size_t count = symbols.size();
  if (count < 2) return;
  PairTable::Merge merges[kShortWord];  // of symbols i and i + 1
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = pairs.Find(symbols[i].id, symbols[i + 1].id);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == PairTable::kNone) break;
    symbols[best].id = merges[best].result;
    symbols[best].length += symbols[best + 1].length;
    std::copy(symbols.begin() + best + 2, symbols.begin() + count, symbols.begin() + best + 1);
    if (best + 2 < count) std::copy(merges + best + 2, merges + count - 1, merges + best + 1);
    --count;
    if (best > 0) merges[best - 1] = pairs.Find(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < count) merges[best] = pairs.Find(symbols[best].id, symbols[best + 1].id);
  }
  symbols.resize(count);
}

void MergeLong(const PairTable& pairs, std::vector<BpeSymbol>& symbols) {
  constexpr uint32_t kEnd = UINT32_MAX;
  const auto count = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(count), previous(count);
  std::vector<bool> gone(count, false);
  for (uint32_t i = 0; i < count; ++i) {
    next[i] = i + 1 < count ? i + 1 : kEnd;
    previous[i] = i > 0 ? i - 1 : kEnd;
  }
  // Rank above, position below: the least rank first, of equal ranks the leftmost.
  std::vector<uint64_t> heap_storage;
  heap_storage.reserve(count);
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> heap(
      std::greater<>(), std::move(heap_storage));
  const auto offer = [&](uint32_t left) {
    const uint32_t rank = pairs.Find(symbols[left].id, symbols[next[left]].id).rank;
    if (rank != PairTable::kNone) heap.push(uint64_t{rank} << 32 | left);
  };
  for (uint32_t i = 0; i + 1 < count; ++i) offer(i);
  while (!heap.empty()) {
    const auto rank = static_cast<uint32_t>(heap.top() >> 32);
    const auto left = static_cast<uint32_t>(heap.top());
    heap.pop();
    if (gone[left] || next[left] == kEnd) continue;
    const uint32_t right = next[left];
    const PairTable::Merge merge = pairs.Find(symbols[left].id, symbols[right].id);
    if (merge.rank != rank) continue;  // one of the two was merged away since
    symbols[left].id = merge.result;
    symbols[left].length += symbols[right].length;
    gone[right] = true;
    next[left] = next[right];
    if (next[left] != kEnd) {
      previous[next[left]] = left;
      offer(left);
    }
    if (previous[left] != kEnd) offer(previous[left]);
  }
  size_t kept = 0;
  for (uint32_t i = 0; i < count; ++i) {
    if (!gone[i]) symbols[kept++] = symbols[i];
  }
  symbols.resize(kept);
}

}  // namespace

void MergeSymbols(const PairTable& pairs, std::vector<BpeSymbol>& symbols) {
  if (symbols.size() <= kShortWord) {
    MergeShort(pairs, symbols);
  } else {
    MergeLong(pairs, symbols);
  }
}

}  // namespace finetuned
