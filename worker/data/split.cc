#include "worker/data/split.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "worker/data/content_hash.h"

namespace finetuned {
namespace {

class UnionFind {
 public:
  explicit UnionFind(size_t size) : parent_(size) { std::iota(parent_.begin(), parent_.end(), 0u); }
  uint32_t Find(uint32_t x) {
    while (parent_[x] != x) x = parent_[x] = parent_[parent_[x]];
    return x;
  }
  // The smaller root wins, so that a group is named by its first sample.
  void Join(uint32_t a, uint32_t b) {
    a = Find(a);
    b = Find(b);
    parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<uint32_t> parent_;
};

struct Group {
  uint64_t rank = ~uint64_t{0};
  uint32_t first = 0;
  int64_t size = 0;
};

}  // namespace

uint64_t SelectionRank(const SplitKey& key, uint64_t seed) {
  return Mix64((key.conversation != 0 ? key.conversation : key.content) ^ Mix64(seed));
}

SplitResult SplitRandomly(absl::Span<const SplitKey> samples, double fraction, uint64_t seed) {
  UnionFind groups(samples.size());
  absl::flat_hash_map<uint64_t, uint32_t> by_content, by_conversation;
  for (uint32_t i = 0; i < samples.size(); ++i) {
    groups.Join(i, by_content.try_emplace(samples[i].content, i).first->second);
    if (samples[i].conversation != 0) {
      groups.Join(i, by_conversation.try_emplace(samples[i].conversation, i).first->second);
    }
  }
  absl::flat_hash_map<uint32_t, Group> found;
  for (uint32_t i = 0; i < samples.size(); ++i) {
    const uint32_t root = groups.Find(i);
    Group& group = found[root];
    group.first = root;
    ++group.size;
    group.rank = std::min(group.rank, SelectionRank(samples[i], seed));
  }
  std::vector<Group> order;
  order.reserve(found.size());
  for (const auto& [root, group] : found) order.push_back(group);
  std::sort(order.begin(), order.end(), [](const Group& a, const Group& b) {
    return std::tie(a.rank, a.first) < std::tie(b.rank, b.first);
  });

  absl::flat_hash_set<uint32_t> chosen;
  if (fraction > 0 && order.size() >= 2) {
    const int64_t target =
        std::max<int64_t>(1, std::llround(fraction * static_cast<double>(samples.size())));
    int64_t count = 0;
    for (const Group& group : order) {
      if (chosen.size() + 1 == order.size()) break;
      if (count + group.size > target) continue;
      chosen.insert(group.first);
      count += group.size;
    }
    if (chosen.empty()) {
      chosen.insert(
          std::min_element(order.begin(), order.end(), [](const Group& a, const Group& b) {
            return std::tie(a.size, a.rank) < std::tie(b.size, b.rank);
          })->first);
    }
  }
  SplitResult out;
  for (uint32_t i = 0; i < samples.size(); ++i) {
    (chosen.contains(groups.Find(i)) ? out.validation : out.train).push_back(i);
  }
  std::stable_sort(out.validation.begin(), out.validation.end(), [&](uint32_t a, uint32_t b) {
    return SelectionRank(samples[a], seed) < SelectionRank(samples[b], seed);
  });
  return out;
}

std::vector<uint32_t> CapSamples(absl::Span<const SplitKey> samples, std::vector<uint32_t> train,
                                 int64_t cap, uint64_t seed) {
  if (static_cast<int64_t>(train.size()) <= cap) return train;
  std::stable_sort(train.begin(), train.end(), [&](uint32_t a, uint32_t b) {
    return SelectionRank(samples[a], seed) < SelectionRank(samples[b], seed);
  });
  train.resize(cap);
  std::sort(train.begin(), train.end());
  return train;
}

int64_t CountOverlap(absl::Span<const SplitKey> samples, const SplitResult& split) {
  absl::flat_hash_set<uint64_t> contents;
  for (const uint32_t i : split.train) contents.insert(samples[i].content);
  return std::count_if(split.validation.begin(), split.validation.end(),
                       [&](uint32_t i) { return contents.contains(samples[i].content); });
}

}  // namespace finetuned
