#include "server/artifacts/upload_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "server/artifacts/artifact_transfers.h"
#include "server/store/job_store.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

class UploadStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { Open({.root = dir_ / "uploads", .disk_reserve_bytes = 0}); }
  void Open(UploadStoreOptions options) {
    auto store = UploadStore::Open(options);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  std::unique_ptr<UploadStore::Session> Begin(uint64_t offset = 0) {
    auto session = store_->Begin(sha_, bytes_.size(), offset);
    EXPECT_TRUE(session.ok()) << session.status();
    return session.ok() ? *std::move(session) : nullptr;
  }

  TempDir dir_;
  std::unique_ptr<UploadStore> store_;
  const std::string bytes_ = std::string(100000, 'a') + "the end";
  const std::string sha_ = Sha256Hex(bytes_);
};

TEST_F(UploadStoreTest, StoresUnderItsHash) {
  EXPECT_TRUE(absl::IsNotFound(store_->Find(sha_).status()));
  auto session = Begin();
  EXPECT_FALSE(session->complete());
  ASSERT_TRUE(session->Append(bytes_.substr(0, 70000)).ok());
  EXPECT_EQ(store_->Query(sha_)->received_bytes, 70000u);
  EXPECT_FALSE(store_->Query(sha_)->complete);
  EXPECT_THAT(std::string(store_->Find(sha_).status().message()),
              HasSubstr("not complete (70000 bytes)"));
  ASSERT_TRUE(session->Append(bytes_.substr(70000)).ok());
  ASSERT_TRUE(session->Finish().ok());
  EXPECT_TRUE(store_->Query(sha_)->complete);
  const auto path = store_->Find(sha_);
  ASSERT_TRUE(path.ok());
  EXPECT_EQ(*path, absl::StrCat(dir_.path(), "/uploads/", sha_.substr(0, 2), "/", sha_));
  EXPECT_EQ(*ReadFile(*path), bytes_);
  // Again: nothing to send.
  auto again = Begin();
  EXPECT_TRUE(again->complete());
  EXPECT_EQ(again->received_bytes(), bytes_.size());
  EXPECT_TRUE(again->Finish().ok());
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Begin(sha_, 5, 0).status()))
      << "another size for the same hash";
}

TEST_F(UploadStoreTest, ResumesAfterARestart) {
  auto session = Begin();
  ASSERT_TRUE(session->Append(bytes_.substr(0, 12345)).ok());
  session.reset();
  SetUp();
  EXPECT_EQ(store_->Query(sha_)->received_bytes, 12345u);
  const absl::Status gap = store_->Begin(sha_, bytes_.size(), 12346).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(gap));
  EXPECT_THAT(std::string(gap.message()), HasSubstr("has 12345 of"));
  session = Begin(10000);  // an earlier place is fine: the bytes after it are sent again
  ASSERT_TRUE(session->Append(bytes_.substr(10000)).ok());
  ASSERT_TRUE(session->Finish().ok());
  EXPECT_EQ(*ReadFile(*store_->Find(sha_)), bytes_);
}

TEST_F(UploadStoreTest, MissingBytesAreKept) {
  auto session = Begin();
  ASSERT_TRUE(session->Append("aaa").ok());
  const absl::Status status = session->Finish();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("resume it at offset 3"));
  EXPECT_EQ(store_->Query(sha_)->received_bytes, 3u);
}

TEST_F(UploadStoreTest, WrongBytesAreDropped) {
  auto session = Begin();
  ASSERT_TRUE(session->Append(std::string(bytes_.size(), 'x')).ok());
  const absl::Status status = session->Finish();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr(sha_));
  EXPECT_EQ(store_->Query(sha_)->received_bytes, 0u);
  session = Begin();
  ASSERT_TRUE(session->Append(bytes_).ok());
  EXPECT_TRUE(session->Finish().ok());
}

TEST_F(UploadStoreTest, MoreThanAnnouncedIsRefused) {
  auto session = Begin();
  EXPECT_TRUE(absl::IsOutOfRange(session->Append(bytes_ + "x")));
  ASSERT_TRUE(session->Append(bytes_).ok());
  EXPECT_TRUE(absl::IsOutOfRange(session->Append("x")));
  EXPECT_TRUE(session->Finish().ok());
}

TEST_F(UploadStoreTest, HostileHashesAndSizes) {
  for (const std::string& hash :
       {std::string(), std::string("abc"), std::string(64, 'g'), std::string(64, 'A'),
        std::string(63, 'a'), std::string("../../../../etc/passwd"), std::string(1 << 20, 'a'),
        std::string(63, 'a') + std::string(1, '\0'), "../" + std::string(61, 'a')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Query(hash).status()));
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Begin(hash, 1, 0).status()));
    EXPECT_TRUE(absl::IsInvalidArgument(store_->Find(hash).status()));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Begin(sha_, UINT64_MAX, 0).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Begin(sha_, 10, UINT64_MAX).status()));
}

TEST_F(UploadStoreTest, NoRoomNamesBytes) {
  Open({.root = dir_ / "uploads", .max_bytes = UINT64_MAX, .disk_reserve_bytes = 0});
  absl::Status status = store_->Begin(sha_, uint64_t{1} << 60, 0).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(IsDiskFull(status));
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrCat(uint64_t{1} << 60, " more bytes")));
  Open({.root = dir_ / "uploads", .disk_reserve_bytes = uint64_t{1} << 60});
  EXPECT_TRUE(IsDiskFull(store_->Begin(sha_, 1, 0).status()));
  EXPECT_EQ(store_->Query(sha_)->received_bytes, 0u);
}

TEST_F(UploadStoreTest, TheNewestSessionWrites) {
  auto old = Begin();
  ASSERT_TRUE(old->Append(bytes_.substr(0, 500)).ok());
  auto newer = Begin(500);
  EXPECT_TRUE(absl::IsAborted(old->Append("xxx")));
  EXPECT_TRUE(absl::IsAborted(old->Finish()));
  ASSERT_TRUE(newer->Append(bytes_.substr(500)).ok());
  ASSERT_TRUE(newer->Finish().ok());
  EXPECT_EQ(*ReadFile(*store_->Find(sha_)), bytes_);
}

TEST_F(UploadStoreTest, ManyClientsWithOneFile) {
  const unsigned seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::atomic<int> done{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + t);
      for (int attempt = 0; attempt < 10000; ++attempt) {
        auto session = store_->Begin(sha_, bytes_.size(), store_->Query(sha_)->received_bytes);
        if (!session.ok()) continue;  // another client has just begun again from an earlier place
        absl::Status status;
        while (status.ok() && !(*session)->complete() &&
               (*session)->received_bytes() < bytes_.size()) {
          status =
              (*session)->Append(bytes_.substr((*session)->received_bytes(), 1 + random() % 30000));
        }
        if (status.ok()) status = (*session)->Finish();
        if (status.ok()) {
          ++done;
          return;
        }
        ASSERT_TRUE(absl::IsAborted(status)) << status;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(done, 6);
  EXPECT_EQ(*ReadFile(*store_->Find(sha_)), bytes_);
  EXPECT_TRUE(std::filesystem::is_empty(dir_ / "uploads/partial"));
}

TEST_F(UploadStoreTest, StalePartialsGo) {
  auto session = Begin();
  ASSERT_TRUE(session->Append("abc").ok());
  EXPECT_EQ(*store_->RemoveStalePartials(absl::Hours(1)), 0);
  EXPECT_EQ(store_->Query(sha_)->received_bytes, 3u);
  EXPECT_EQ(*store_->RemoveStalePartials(absl::Seconds(-5)), 1);
  EXPECT_EQ(store_->Query(sha_)->received_bytes, 0u);
  EXPECT_TRUE(absl::IsAborted(session->Append("d")));
}

TEST_F(UploadStoreTest, ALinkInThePlaceOfAPartialIsNotFollowed) {
  std::filesystem::create_symlink("/etc/hostname", dir_ / ("uploads/partial/" + sha_));
  EXPECT_FALSE(store_->Begin(sha_, bytes_.size(), 0).ok());
}

TEST(ArtifactTransfersTest, UploadsAreRecordedAndArtifactsServed) {
  TempDir dir;
  auto store = OpenSqliteStore({.path = dir / "jobs.db"});
  ASSERT_TRUE(store.ok());
  auto uploads = UploadStore::Open({.root = dir / "uploads", .disk_reserve_bytes = 0});
  ASSERT_TRUE(uploads.ok());
  const auto transfers = MakeFileTransfers(dir.path(), uploads->get(), store->get());
  v1::UploadHeader header;
  header.set_sha256(Sha256Hex("hello"));
  header.set_size_bytes(5);
  header.set_name("greeting.txt");
  auto upload = transfers->OpenUpload(header);
  ASSERT_TRUE(upload.ok()) << upload.status();
  ASSERT_TRUE((*upload)->Append("hello").ok());
  const auto response = (*upload)->Finish();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->uri(), "upload:" + header.sha256());
  EXPECT_TRUE(transfers->Query(header.sha256())->complete());
  (*store)->ReadSync([&](StoreReader& reader) {
    const auto recorded = reader.FindUpload(header.sha256());
    ASSERT_TRUE(recorded.ok() && recorded->has_value());
    EXPECT_EQ((*recorded)->name, "greeting.txt");
  });

  EXPECT_TRUE(absl::IsNotFound(transfers->OpenArtifact("../jobs/j", "a").status()));
  v1::Job job;
  job.set_job_id("j");
  job.set_state(v1::SUCCEEDED);
  v1::Artifact* listed = job.mutable_result()->add_artifacts();
  listed->set_path("adapter/a.bin");
  listed->set_size_bytes(3);
  listed->set_sha256("as-listed");
  ASSERT_TRUE((*store)->WriteSync([&](StoreWriter& writer) { return writer.InsertJob(job); }).ok());
  ASSERT_TRUE(MakeDirectories(dir / "jobs/j/artifacts/adapter").ok());
  ASSERT_TRUE(WriteFileAtomic(dir / "jobs/j/artifacts/adapter/a.bin", "abc").ok());
  ASSERT_TRUE(WriteFileAtomic(dir / "jobs/j/artifacts/adapter/b.bin", "hello").ok());
  ASSERT_TRUE(WriteFileAtomic(dir / "jobs/j/secret", "x").ok());
  const auto a = transfers->OpenArtifact("j", "adapter/a.bin");
  ASSERT_TRUE(a.ok()) << a.status();
  EXPECT_EQ((*a)->sha256(), "as-listed");
  EXPECT_EQ(*(*a)->Read(1, 100), "bc");
  EXPECT_EQ((*transfers->OpenArtifact("j", "adapter/b.bin"))->sha256(), Sha256Hex("hello"));
  EXPECT_TRUE(absl::IsInvalidArgument(transfers->OpenArtifact("j", "../secret").status()));
  EXPECT_TRUE(absl::IsNotFound(transfers->OpenArtifact("j", "none").status()));
}

}  // namespace
}  // namespace finetuned
