#include "worker/job/stage_store.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "proto/base/file_util.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

using nlohmann::json;

TEST(StageStoreTest, AResultCountsForItsInputsOnly) {
  const TempDir dir;
  StageStore store(dir.path());
  EXPECT_FALSE(store.Result(v1::TRAINING, "a").has_value());
  ASSERT_TRUE(store.Commit(v1::TRAINING, "a", {{"steps", 30}}).ok());
  EXPECT_EQ(store.Result(v1::TRAINING, "a"), json({{"steps", 30}}));
  EXPECT_FALSE(store.Result(v1::TRAINING, "b").has_value());
  EXPECT_FALSE(store.Result(v1::EVALUATING, "a").has_value());
  ASSERT_TRUE(store.Commit(v1::TRAINING, "b", {{"steps", 31}}).ok());
  EXPECT_FALSE(store.Result(v1::TRAINING, "a").has_value());
  // A new attempt reads what an earlier one left.
  EXPECT_EQ(StageStore(dir.path()).Result(v1::TRAINING, "b"), json({{"steps", 31}}));
}

TEST(StageStoreTest, ForgetsAStageAndWhatFollows) {
  const TempDir dir;
  StageStore store(dir.path());
  for (v1::Stage stage :
       {v1::PREPARING_DATA, v1::EVALUATING_BASE, v1::TRAINING, v1::EVALUATING, v1::EXPORTING}) {
    ASSERT_TRUE(store.Commit(stage, "x", json::object()).ok());
  }
  ASSERT_TRUE(store.InvalidateFrom(v1::TRAINING).ok());
  EXPECT_TRUE(store.Result(v1::PREPARING_DATA, "x").has_value());
  EXPECT_TRUE(store.Result(v1::EVALUATING_BASE, "x").has_value());
  EXPECT_FALSE(store.Result(v1::TRAINING, "x").has_value());
  EXPECT_FALSE(store.Result(v1::EVALUATING, "x").has_value());
  EXPECT_FALSE(store.Result(v1::EXPORTING, "x").has_value());
  EXPECT_TRUE(StageStore(dir / "nothing").InvalidateFrom(v1::PREPARING_DATA).ok());
}

TEST(StageStoreTest, ADamagedFileIsNotDone) {
  const TempDir dir;
  StageStore store(dir.path());
  ASSERT_TRUE(store.Commit(v1::TRAINING, "a", {{"steps", 30}, {"loss", 1.5}}).ok());
  const std::string path = dir / "stages/training.json";
  const std::string whole = *ReadFile(path);
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    std::string text = whole.substr(0, random() % 4 ? whole.size() : random() % whole.size());
    for (int i = 0; !text.empty() && i < 2; ++i)
      text[random() % text.size()] = static_cast<char>(random());
    std::ofstream(path, std::ios::binary) << text;
    store.Result(v1::TRAINING, "a");  // whatever it says, it says it
  }
  for (const char* text :
       {"", "{", "[]", "null", "{\"inputs_sha256\":\"a\"}", "{\"inputs_sha256\":7,\"result\":{}}",
        "{\"inputs_sha256\":null,\"result\":{}}"}) {
    std::ofstream(path, std::ios::binary) << text;
    EXPECT_FALSE(store.Result(v1::TRAINING, "a").has_value()) << text;
  }
}

TEST(StageNameTest, AsPeopleSpellIt) {
  EXPECT_EQ(StageName(v1::PREPARING_DATA), "preparing_data");
  EXPECT_EQ(StageName(v1::EXPORTING), "exporting");
}

}  // namespace
}  // namespace finetuned
