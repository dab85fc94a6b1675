#include "server/artifacts/artifact_reader.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;

class ArtifactReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(MakeDirectories(dir_ / "artifacts/gguf").ok());
    ASSERT_TRUE(WriteFileAtomic(dir_ / "artifacts/gguf/model.gguf", "0123456789").ok());
    ASSERT_TRUE(WriteFileAtomic(dir_ / "secret", "secret").ok());
  }
  absl::Status Open(const std::string& path) {
    return ArtifactReader::Open(dir_ / "artifacts", path).status();
  }

  TempDir dir_;
};

TEST_F(ArtifactReaderTest, ReadsPieces) {
  const auto reader = ArtifactReader::Open(dir_ / "artifacts", "gguf/model.gguf");
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ(reader->size_bytes(), 10u);
  EXPECT_EQ(*reader->Read(0, 4), "0123");
  EXPECT_EQ(*reader->Read(8, 4), "89");
  EXPECT_EQ(*reader->Read(10, 4), "");
  EXPECT_EQ(*reader->Read(UINT64_MAX, SIZE_MAX), "");
  EXPECT_EQ(*reader->Read(0, SIZE_MAX), "0123456789");
  EXPECT_EQ(*reader->Sha256(), Sha256Hex("0123456789"));
}

TEST_F(ArtifactReaderTest, PathsThatLeadOut) {
  for (const std::string& path :
       {std::string(), std::string("/etc/passwd"), std::string("../secret"),
        std::string("gguf/../../secret"), std::string("."), std::string("gguf//model.gguf"),
        std::string("gguf/"), std::string("gguf/./model.gguf"),
        std::string("gguf/model.gguf\0x", 17), std::string(5000, 'a')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Open(path))) << path;
  }
  EXPECT_TRUE(absl::IsNotFound(Open("gguf/none")));
  EXPECT_TRUE(absl::IsNotFound(Open("gguf/model.gguf/x")));
}

TEST_F(ArtifactReaderTest, LinksAndSpecialFilesAreNotServed) {
  fs::create_symlink(dir_ / "secret", dir_ / "artifacts/link");
  fs::create_symlink(dir_.path(), dir_ / "artifacts/up");
  fs::create_symlink("gguf/model.gguf", dir_ / "artifacts/inside");
  ASSERT_EQ(mkfifo((dir_ / "artifacts/pipe").c_str(), 0600), 0);
  for (const char* path : {"link", "up/secret", "inside", "pipe", "gguf"}) {
    EXPECT_TRUE(absl::IsPermissionDenied(Open(path))) << path << ": " << Open(path);
  }
}

TEST_F(ArtifactReaderTest, AFileThatShrinks) {
  const auto reader = ArtifactReader::Open(dir_ / "artifacts", "gguf/model.gguf");
  ASSERT_EQ(truncate((dir_ / "artifacts/gguf/model.gguf").c_str(), 5), 0);
  EXPECT_TRUE(absl::IsDataLoss(reader->Read(0, 10).status()));
}

TEST_F(ArtifactReaderTest, RandomPathsNeverLeaveTheDirectory) {
  fs::create_symlink("..", dir_ / "artifacts/l");
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  static const char* const kPieces[] = {"gguf",   "model.gguf", "..", ".",  "/", "l",
                                        "secret", "artifacts",  "",   "//", "\\"};
  for (int i = 0; i < 5000; ++i) {
    std::string path;
    for (int n = 1 + static_cast<int>(random() % 6); n > 0; --n) {
      path += kPieces[random() % std::size(kPieces)];
      if (random() % 2) path += '/';
    }
    const auto reader = ArtifactReader::Open(dir_ / "artifacts", path);
    if (reader.ok()) {
      EXPECT_EQ(*reader->Read(0, 100), "0123456789") << path;
    }
  }
}

}  // namespace
}  // namespace finetuned
