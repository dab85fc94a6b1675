#include "server/artifacts/path_roots.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class PathRootsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* sub :
         {"models/smol", "models/org/name", "models2", "data/sub", "outside/model"}) {
      ASSERT_TRUE(MakeDirectories(dir_ / sub).ok());
    }
    for (const char* file :
         {"models/smol/config.json", "models/tiny.gguf", "data/a.jsonl", "data/sub/b.jsonl",
          "outside/secret.jsonl", "outside/model/config.json"}) {
      ASSERT_TRUE(WriteFileAtomic(dir_ / file, "x").ok());
    }
    roots_ =
        std::make_unique<PathRoots>(std::vector<std::string>{dir_ / "models", dir_ / "models2/"},
                                    std::vector<std::string>{dir_ / "data"}, nullptr);
  }
  std::string Text(const absl::StatusOr<std::string>& result) {
    return std::string(result.status().message());
  }

  TempDir dir_;
  std::unique_ptr<PathRoots> roots_;
};

TEST_F(PathRootsTest, NamesAndPathsBelowARoot) {
  EXPECT_EQ(*roots_->Model("smol"), dir_ / "models/smol");
  EXPECT_EQ(*roots_->Model("smol/"), dir_ / "models/smol");
  EXPECT_EQ(*roots_->Model("./smol"), dir_ / "models/smol");
  EXPECT_EQ(*roots_->Model("org/name"), dir_ / "models/org/name");
  EXPECT_EQ(*roots_->Model("tiny.gguf"), dir_ / "models/tiny.gguf");
  EXPECT_EQ(*roots_->Model(dir_ / "models/smol"), dir_ / "models/smol");
  EXPECT_EQ(*roots_->Data("a.jsonl"), dir_ / "data/a.jsonl");
  EXPECT_EQ(*roots_->Data("sub/b.jsonl"), dir_ / "data/sub/b.jsonl");
  EXPECT_EQ(*roots_->Data(dir_ / "data//sub/./b.jsonl"), dir_ / "data/sub/b.jsonl");
}

TEST_F(PathRootsTest, ARootMayBeALink) {
  fs::create_directory_symlink(dir_ / "data", dir_ / "data-link");
  const PathRoots roots({}, {dir_ / "data-link"}, nullptr);
  EXPECT_EQ(*roots.Data("a.jsonl"), dir_ / "data/a.jsonl");
  EXPECT_EQ(*roots.Data(dir_ / "data-link/a.jsonl"), dir_ / "data/a.jsonl");
  EXPECT_EQ(*roots.Data(dir_ / "data/a.jsonl"), dir_ / "data/a.jsonl");
}

TEST_F(PathRootsTest, WhatIsNotThereSaysWhereItWasLookedFor) {
  const auto model = roots_->Model("meta-llama/Llama-2-7b-hf");
  EXPECT_TRUE(absl::IsNotFound(model.status()));
  EXPECT_THAT(Text(model), HasSubstr(dir_ / "models"));
  EXPECT_THAT(Text(model), HasSubstr(dir_ / "models2"));
  EXPECT_THAT(Text(model), HasSubstr("huggingface-cli download meta-llama/Llama-2-7b-hf"));
  const auto data = roots_->Data(dir_ / "data/none.jsonl");
  EXPECT_TRUE(absl::IsNotFound(data.status()));
  EXPECT_THAT(Text(data), HasSubstr("data roots: " + (dir_ / "data")));
  const PathRoots none({}, {}, nullptr);
  EXPECT_TRUE(absl::IsNotFound(none.Model("m").status()));
  EXPECT_THAT(Text(none.Model("m")), HasSubstr("--model-root DIRECTORY"));
}

TEST_F(PathRootsTest, PathsOutside) {
  for (const std::string& path :
       {std::string("/etc/passwd"), std::string("/no/such"), dir_ / "outside/secret.jsonl",
        dir_ / "data-other", dir_ / "data/../outside/secret.jsonl", std::string("../outside"),
        std::string("sub/../../outside/secret.jsonl"), std::string(".."), std::string("/")}) {
    const auto result = roots_->Data(path);
    EXPECT_TRUE(absl::IsPermissionDenied(result.status())) << path << ": " << result.status();
    EXPECT_THAT(Text(result), HasSubstr("--data-root"));
  }
  // The same words whether or not something is there.
  EXPECT_EQ(Text(roots_->Data("/etc/passwd")).size() - 11,
            Text(roots_->Data("/no/such")).size() - 8);
  // A model root is no data root.
  EXPECT_TRUE(absl::IsPermissionDenied(roots_->Data(dir_ / "models/tiny.gguf").status()));
}

TEST_F(PathRootsTest, LinksOut) {
  fs::create_symlink(dir_ / "outside/secret.jsonl", dir_ / "data/link.jsonl");
  fs::create_directory_symlink(dir_ / "outside", dir_ / "data/dir");
  fs::create_symlink("a.jsonl", dir_ / "data/inside.jsonl");
  for (const char* path : {"link.jsonl", "dir/secret.jsonl"}) {
    const auto result = roots_->Data(path);
    EXPECT_TRUE(absl::IsPermissionDenied(result.status())) << result.status();
    EXPECT_THAT(Text(result), HasSubstr("by a link"));
  }
  EXPECT_EQ(*roots_->Data("inside.jsonl"), dir_ / "data/a.jsonl");
  fs::create_symlink(dir_ / "outside/secret.jsonl", dir_ / "models/smol/model.safetensors");
  const auto model = roots_->Model("smol");
  EXPECT_TRUE(absl::IsPermissionDenied(model.status())) << model.status();
  EXPECT_THAT(Text(model), HasSubstr("'model.safetensors'"));
}

TEST_F(PathRootsTest, HuggingFaceCache) {
  const std::string base = dir_ / "models2/models--org--cached";
  ASSERT_TRUE(MakeDirectories(base + "/blobs").ok());
  ASSERT_TRUE(MakeDirectories(base + "/snapshots/rev1").ok());
  ASSERT_TRUE(WriteFileAtomic(base + "/blobs/abc", "weights").ok());
  fs::create_symlink("../../blobs/abc", base + "/snapshots/rev1/model.safetensors");
  EXPECT_EQ(*roots_->Model("org/cached"), base + "/snapshots/rev1");
  ASSERT_TRUE(MakeDirectories(base + "/snapshots/rev2").ok());
  EXPECT_TRUE(absl::IsNotFound(roots_->Model("org/cached").status())) << "two snapshots and no ref";
  ASSERT_TRUE(MakeDirectories(base + "/refs").ok());
  ASSERT_TRUE(WriteFileAtomic(base + "/refs/main", "rev2\n").ok());
  EXPECT_EQ(*roots_->Model("org/cached"), base + "/snapshots/rev2");
  EXPECT_EQ(*roots_->Model("models--org--cached/snapshots/rev1"), base + "/snapshots/rev1");
  ASSERT_TRUE(WriteFileAtomic(base + "/refs/main", "../../../../outside/model").ok());
  EXPECT_TRUE(absl::IsNotFound(roots_->Model("org/cached").status()));
}

TEST_F(PathRootsTest, FormsThatAreNone) {
  for (const std::string& path : {std::string(), std::string(10000, 'a'), std::string("a\0b", 3)}) {
    EXPECT_TRUE(absl::IsInvalidArgument(roots_->Data(path).status()));
    EXPECT_TRUE(absl::IsInvalidArgument(roots_->Model(path).status()));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(roots_->Data("sub").status()))
      << "a directory is no data file";
}

TEST_F(PathRootsTest, Uploads) {
  auto uploads = UploadStore::Open({.root = dir_ / "uploads", .disk_reserve_bytes = 0});
  const PathRoots roots({}, {}, uploads->get());
  const std::string sha = Sha256Hex("data");
  EXPECT_TRUE(absl::IsNotFound(roots.Data("upload:" + sha).status()));
  auto session = (*uploads)->Begin(sha, 4, 0);
  ASSERT_TRUE((*session)->Append("data").ok() && (*session)->Finish().ok());
  EXPECT_EQ(*roots.Data("upload:" + sha), *(*uploads)->Find(sha));
  EXPECT_TRUE(absl::IsInvalidArgument(roots.Data("upload:../../secret").status()));
  EXPECT_TRUE(absl::IsNotFound(roots_->Data("upload:" + sha).status()));
}

TEST_F(PathRootsTest, RandomPathsNeverLeaveTheRoots) {
  fs::create_directory_symlink(dir_ / "outside", dir_ / "data/l");
  fs::create_directory_symlink("..", dir_ / "data/sub/up");
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const std::string pieces[] = {"sub", "a.jsonl", "b.jsonl",      "..",        ".",    "/",
                                "l",   "up",      "secret.jsonl", dir_.path(), "data", ""};
  int found = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string path;
    for (int n = 1 + static_cast<int>(random() % 5); n > 0; --n) {
      path += pieces[random() % std::size(pieces)];
      if (random() % 2) path += '/';
    }
    const auto result = roots_->Data(path);
    if (!result.ok()) continue;
    ++found;
    EXPECT_EQ(result->compare(0, (dir_ / "data/").size(), dir_ / "data/"), 0)
        << path << " → " << *result;
  }
  EXPECT_GT(found, 0);
}

}  // namespace
}  // namespace finetuned
