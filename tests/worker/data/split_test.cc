#include "worker/data/split.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>

#include "gtest/gtest.h"
#include "tests/worker/data/test_util.h"

namespace finetuned {
namespace {

TEST(SplitTest, Properties) {
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 300; ++round) {
    const size_t count = random() % 200;
    const uint64_t contents = 1 + random() % 300, conversations = 1 + random() % 40;
    std::vector<SplitKey> keys(count);
    for (SplitKey& key : keys) {
      key.content = 1 + random() % contents;
      if (random() % 3 == 0) key.conversation = 1000 + random() % conversations;
    }
    const double fraction = static_cast<double>(random() % 90) / 100;
    const uint64_t seed = random();
    const SplitResult split = SplitRandomly(keys, fraction, seed);

    std::vector<uint32_t> all = split.train;
    all.insert(all.end(), split.validation.begin(), split.validation.end());
    std::sort(all.begin(), all.end());
    ASSERT_EQ(all.size(), count);
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(all[i], i);
    ASSERT_TRUE(std::is_sorted(split.train.begin(), split.train.end()));
    ASSERT_EQ(CountOverlap(keys, split), 0);
    std::set<uint64_t> train_conversations, distinct;
    for (const uint32_t i : split.train) train_conversations.insert(keys[i].conversation);
    for (const uint32_t i : split.validation) {
      if (keys[i].conversation != 0) {
        ASSERT_EQ(train_conversations.count(keys[i].conversation), 0u);
      }
    }
    if (count > 0) {
      ASSERT_FALSE(split.train.empty());
    }
    if (fraction == 0) {
      ASSERT_TRUE(split.validation.empty());
    }
    const SplitResult again = SplitRandomly(keys, fraction, seed);
    ASSERT_EQ(again.train, split.train);
    ASSERT_EQ(again.validation, split.validation);
    ASSERT_EQ(CapSamples(keys, split.train, 5, seed).size(),
              std::min<size_t>(5, split.train.size()));
  }
}

TEST(SplitTest, SinglesGiveTheExactShareInRandomOrder) {
  std::vector<SplitKey> keys(1000);
  for (size_t i = 0; i < keys.size(); ++i) keys[i].content = i + 1;
  const SplitResult split = SplitRandomly(keys, 0.1, 42);
  EXPECT_EQ(split.validation.size(), 100u);
  EXPECT_FALSE(std::is_sorted(split.validation.begin(), split.validation.end()));
  EXPECT_NE(SplitRandomly(keys, 0.1, 43).validation, split.validation);
}

TEST(SplitTest, SmallSets) {
  const std::vector<SplitKey> two = {{.content = 1}, {.content = 2}};
  EXPECT_EQ(SplitRandomly(two, 0.01, 1).validation.size(), 1u);
  const std::vector<SplitKey> one_group = {{1, 7}, {2, 7}, {3, 7}};
  EXPECT_TRUE(SplitRandomly(one_group, 0.5, 1).validation.empty());
  // All groups are larger than the target: the smallest is taken whole.
  const std::vector<SplitKey> large = {{1, 7}, {2, 7}, {3, 7}, {4, 8}, {5, 8}};
  EXPECT_EQ(SplitRandomly(large, 0.1, 1).validation.size(), 2u);
  // A chain of shared keys is one group: 1-7-2-8.
  const std::vector<SplitKey> chain = {{1, 7}, {2, 7}, {2, 8}, {9, 8}, {5, 0}};
  const SplitResult split = SplitRandomly(chain, 0.2, 3);
  EXPECT_EQ(split.validation, std::vector<uint32_t>{4});
}

}  // namespace
}  // namespace finetuned
