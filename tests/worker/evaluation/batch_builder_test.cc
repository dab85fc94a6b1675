#include "worker/evaluation/batch_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/worker/evaluation/list_store.h"

namespace finetuned {
namespace {

using testing::ElementsAre;

std::vector<int64_t> Values(const at::Tensor& tensor) {
  const int64_t* data = tensor.const_data_ptr<int64_t>();
  return {data, data + tensor.numel()};
}

const ListStore& Three() {
  static const ListStore store(
      {{{10, 11, 12, 13}, {0, 0, 1, 1}}, {{20}, {0}}, {{30, 31, 32}, {0, 1, 0}}});
  return store;
}

TEST(BatchBuilderTest, DocumentsEndToEndInTheOrderOfTheRows) {
  const Batch batch = BuildBatch(Three(), {{{2, 1}, {0}}}, Targets::kTrained, at::kCPU);
  EXPECT_THAT(Values(batch.input_ids), ElementsAre(30, 31, 32, 20, 10, 11, 12, 13));
  EXPECT_THAT(Values(batch.position_ids), ElementsAre(0, 1, 2, 0, 0, 1, 2, 3));
  // A target is the next token of the same document, where the mask marks it.
  EXPECT_THAT(Values(batch.targets), ElementsAre(31, -100, -100, -100, -100, 12, 13, -100));
  EXPECT_THAT(batch.cu_seqlens, ElementsAre(0, 3, 4, 8));
  EXPECT_EQ(batch.max_seqlen, 4);
  EXPECT_EQ(batch.target_count, 3);
}

TEST(BatchBuilderTest, AllTokensButTheFirstOfEachDocument) {
  const Batch batch = BuildBatch(Three(), {{{0, 1, 2}}}, Targets::kAllTokens, at::kCPU);
  EXPECT_THAT(Values(batch.targets), ElementsAre(11, 12, 13, -100, -100, 31, 32, -100));
  EXPECT_EQ(batch.target_count, 5);
}

TEST(BatchBuilderTest, LengthsOfAllSamples) {
  EXPECT_THAT(SampleLengths(Three()), ElementsAre(4, 1, 3));
}

TEST(BatchBuilderTest, CountedTargetsAreThoseOfTheBatch) {
  std::mt19937 random(11);
  for (int round = 0; round < 100; ++round) {
    std::vector<ListedSample> samples(1 + random() % 8);
    MicroBatch micro_batch;
    for (uint32_t i = 0; i < samples.size(); ++i) {
      samples[i].ids.resize(random() % 20);
      samples[i].trained.resize(samples[i].ids.size());
      for (uint8_t& trained : samples[i].trained)
        trained = random() % 2;  // also of the first token, which has no past
      if (i == 0 || random() % 2) micro_batch.rows.emplace_back();
      micro_batch.rows.back().push_back(i);
    }
    const ListStore store(samples);
    EXPECT_EQ(CountTargets(store, micro_batch),
              BuildBatch(store, micro_batch, Targets::kTrained, at::kCPU).target_count)
        << round;
  }
}

}  // namespace
}  // namespace finetuned
