#include "worker/data/token_file.h"

#include <random>

#include "gtest/gtest.h"
#include "tests/worker/data/test_util.h"
#include "worker/data/cache_entry.h"

namespace finetuned {
namespace {

std::string Build(const std::string& path, size_t samples, uint64_t seed) {
  auto writer = *TokenFileWriter::Create(path);
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < samples; ++i) {
    std::vector<int32_t> ids(random() % 50);
    std::vector<uint8_t> trained(ids.size());
    for (size_t t = 0; t < ids.size(); ++t) {
      ids[t] = static_cast<int32_t>(random() % 1000);
      trained[t] = random() % 2;
    }
    EXPECT_TRUE(writer->Append(ids, trained, "sample-" + std::to_string(i), 7).ok());
  }
  EXPECT_TRUE(writer->Finish().ok());
  return writer->content_sha256();
}

TEST(TokenFileTest, ReadsBackWhatWasWritten) {
  TempDir dir;
  const std::string path = dir.path() + "/t";
  const std::string hash = Build(path, 500, 5);
  EXPECT_EQ(Build(dir.path() + "/u", 500, 5), hash);
  EXPECT_NE(Build(dir.path() + "/v", 500, 6), hash);
  const auto file = TokenFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->index().size(), 500u);
  std::mt19937_64 random(5);
  for (size_t i = 0; i < 500; ++i) {
    const SampleView sample = (*file)->Sample(i);
    ASSERT_EQ(sample.input_ids.size(), random() % 50);
    uint32_t trained = 0;
    for (size_t t = 0; t < sample.input_ids.size(); ++t) {
      ASSERT_EQ(sample.input_ids[t], static_cast<int32_t>(random() % 1000));
      ASSERT_EQ(sample.trained[t], random() % 2);
      trained += sample.trained[t];
    }
    ASSERT_EQ(trained, (*file)->index()[i].trained);
    ASSERT_EQ(sample.sample_id, "sample-" + std::to_string(i));
  }
  const auto store = MakeTokenStore(*file, {3, 1});
  EXPECT_EQ(store->size(), 2u);
  EXPECT_EQ(store->Sample(0).sample_id, "sample-3");
  EXPECT_EQ(store->total_tokens(), (*file)->index()[3].tokens + (*file)->index()[1].tokens);
}

// Every single flipped byte and every cut is noticed.
TEST(TokenFileTest, AnyDamageIsNoticed) {
  TempDir dir;
  const std::string path = dir.path() + "/t";
  Build(path, 4, 1);
  const std::string good = *ReadFile(path);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string damaged = good;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    const auto opened = TokenFile::Open(dir.Write("d", damaged));
    ASSERT_TRUE(absl::IsDataLoss(opened.status())) << "byte " << i << ": " << opened.status();
  }
  for (size_t size = 0; size < good.size(); size += 31) {
    ASSERT_TRUE(absl::IsDataLoss(TokenFile::Open(dir.Write("d", good.substr(0, size))).status()))
        << size;
  }
  EXPECT_TRUE(absl::IsDataLoss(TokenFile::Open(dir.Write("d", good + "x")).status()));
  EXPECT_TRUE(absl::IsNotFound(TokenFile::Open(dir.path() + "/none").status()));
}

TEST(TokenFileTest, ManyBlocks) {
  TempDir dir;
  const std::string path = dir.path() + "/t";
  auto writer = *TokenFileWriter::Create(path);
  const std::vector<int32_t> ids(100'000, 5);
  const std::vector<uint8_t> trained(ids.size(), 1);
  for (int i = 0; i < 9; ++i) ASSERT_TRUE(writer->Append(ids, trained, "x", 1).ok());
  ASSERT_TRUE(writer->Finish().ok());
  ASSERT_TRUE(TokenFile::Open(path).ok());
  std::string bytes = *ReadFile(path);
  bytes[3 << 20] ^= 1;
  EXPECT_NE(
      std::string(TokenFile::Open(dir.Write("d", bytes)).status().message()).find("block 2 of 5"),
      std::string::npos);
}

TEST(CacheEntryTest, FirstBuilderWinsAndDeadOnesAreRemoved) {
  TempDir dir;
  const std::string cache = dir.path() + "/cache";
  EXPECT_TRUE(absl::IsNotFound(OpenCacheEntry(cache, "k").status()));
  std::filesystem::create_directories(cache + "/k.tmp.1.0");  // left by a killed builder
  {
    auto a = *CacheEntryBuilder::Create(cache, "k");
    EXPECT_FALSE(std::filesystem::exists(cache + "/k.tmp.1.0"));
    auto b = *CacheEntryBuilder::Create(cache, "k");  // does not disturb the living one
    for (CacheEntryBuilder* builder : {a.get(), b.get()}) {
      Build(builder->PathOf(kTokenFileName), 3, 1);
      ASSERT_TRUE(builder->WriteSplit({0, 2}, {1}).ok());
      ASSERT_TRUE(builder->WriteMeta("{}").ok());
      ASSERT_TRUE(builder->Commit().ok());
    }
  }
  const auto entry = OpenCacheEntry(cache, "k");
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->train, (std::vector<uint32_t>{0, 2}));
  EXPECT_EQ(entry->validation, (std::vector<uint32_t>{1}));
  size_t left = 0;
  for (const auto& item : std::filesystem::directory_iterator(cache))
    left += item.path().filename() != "lock";
  EXPECT_EQ(left, 1u);
  ASSERT_TRUE(RemoveCacheEntry(cache, "k").ok());
  EXPECT_TRUE(absl::IsNotFound(OpenCacheEntry(cache, "k").status()));
  EXPECT_EQ(entry->tokens->Sample(2).sample_id, "sample-2") << "the map outlives the entry";
}

}  // namespace
}  // namespace finetuned
