// WatchJob, UploadFile and DownloadArtifact over a real connection.
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

#include "server/api/request_checks.h"
#include "tests/server/api/api_fixture.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

class StreamsTest : public ApiTest {
 protected:
  struct Watched {
    std::vector<v1::JobEvent> events;
    absl::Status status;
  };
  // Reads a watch to its end, or until `limit` events have come.
  Watched Watch(const std::string& job_id, int64_t after_seq, size_t limit = SIZE_MAX) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    v1::WatchJobRequest request;
    request.set_job_id(job_id);
    request.set_after_seq(after_seq);
    auto reader = stub_->WatchJob(&context, request);
    Watched watched;
    v1::JobEvent event;
    while (watched.events.size() < limit && reader->Read(&event)) watched.events.push_back(event);
    if (watched.events.size() >= limit) context.TryCancel();
    watched.status = FromGrpcStatus(reader->Finish());
    return watched;
  }
  static void ExpectGapFree(const Watched& watched, int64_t after_seq) {
    for (size_t i = 0; i < watched.events.size(); ++i)
      ASSERT_EQ(watched.events[i].seq(), after_seq + 1 + static_cast<int64_t>(i));
  }

  // Sends header and chunks; the answer's status.
  absl::Status Upload(const v1::UploadHeader& header, const std::vector<std::string>& chunks,
                      v1::UploadFileResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    auto writer = stub_->UploadFile(&context, response);
    v1::UploadFileRequest message;
    *message.mutable_header() = header;
    bool open = writer->Write(message);
    for (const std::string& chunk : chunks) {
      if (!open) break;
      message.set_chunk(chunk);
      open = writer->Write(message);
    }
    writer->WritesDone();
    return FromGrpcStatus(writer->Finish());
  }
  static v1::UploadHeader Header(const std::string& bytes, uint64_t offset = 0) {
    v1::UploadHeader header;
    header.set_sha256(Sha256Hex(bytes));
    header.set_size_bytes(bytes.size());
    header.set_offset(offset);
    return header;
  }
  // Reads a download to its end.
  absl::Status Download(const std::string& path, uint64_t offset, std::string* bytes,
                        v1::DownloadArtifactResponse* first) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    v1::DownloadArtifactRequest request;
    request.set_job_id("a");
    request.set_path(path);
    request.set_offset(offset);
    auto reader = stub_->DownloadArtifact(&context, request);
    v1::DownloadArtifactResponse message;
    bool is_first = true;
    while (reader->Read(&message)) {
      if (is_first && first != nullptr) *first = message;
      is_first = false;
      *bytes += message.chunk();
    }
    return FromGrpcStatus(reader->Finish());
  }
};

TEST_F(StreamsTest, AWatchOfAFinishedJobGivesTheWholeLogAndEnds) {
  MakeJob("a", 1500);
  Succeed("a");
  Watched watched = Watch("a", 0);
  EXPECT_TRUE(watched.status.ok()) << watched.status;
  ASSERT_EQ(watched.events.size(), 1505u);
  ExpectGapFree(watched, 0);
  EXPECT_EQ(watched.events.back().state().to(), v1::SUCCEEDED);
  // From the middle, and from the end.
  watched = Watch("a", 1500);
  EXPECT_EQ(watched.events.size(), 5u);
  ExpectGapFree(watched, 1500);
  watched = Watch("a", 1505);
  EXPECT_TRUE(watched.status.ok());
  EXPECT_TRUE(watched.events.empty());
}

TEST_F(StreamsTest, WatchersSeeEveryEventWhileOthersAreAppended) {
  MakeJob("a", 10);
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  std::vector<Watched> watched(8);
  for (size_t i = 0; i < watched.size(); ++i)
    threads.emplace_back([&, i] { watched[i] = Watch("a", static_cast<int64_t>(i)); });
  std::thread late;
  // Asynchronous writes from two threads, as fast as they go.
  std::vector<std::thread> writers;
  for (int w = 0; w < 2; ++w)
    writers.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        v1::JobEvent event;
        event.mutable_log()->set_text("line");
        store_->Write(
            [event](StoreWriter& writer) { return writer.AppendEvent("a", event).status(); },
            nullptr);
        if (i == 1000) std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    });
  for (std::thread& writer : writers) writer.join();
  Watched from_middle = Watch("a", 100, 500);
  EXPECT_EQ(from_middle.events.size(), 500u);
  ExpectGapFree(from_middle, 100);
  Succeed("a");
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < watched.size(); ++i) {
    EXPECT_TRUE(watched[i].status.ok()) << watched[i].status;
    EXPECT_EQ(watched[i].events.size(), 4015u - i);
    ExpectGapFree(watched[i], static_cast<int64_t>(i));
  }
}

TEST_F(StreamsTest, AWatchGoesThroughAnEarlierEndOfARerunJob) {
  MakeJob("a");
  SetState("a", v1::QUEUED);
  SetState("a", v1::CANCELLED);
  SetState("a", v1::QUEUED);
  Append("a", "second run");
  std::thread end([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    for (v1::JobState state : {v1::STARTING, v1::RUNNING, v1::SUCCEEDED}) SetState("a", state);
  });
  Watched watched = Watch("a", 0);
  end.join();
  EXPECT_TRUE(watched.status.ok()) << watched.status;
  EXPECT_EQ(watched.events.size(), 8u);
  ExpectGapFree(watched, 0);
}

TEST_F(StreamsTest, EventsBehindTheFinalStateAreStillSent) {
  MakeJob("a");
  Succeed("a");
  Append("a", "report written");
  Watched watched = Watch("a", 0);
  EXPECT_TRUE(watched.status.ok());
  EXPECT_EQ(watched.events.size(), 6u);
}

TEST_F(StreamsTest, BadWatchesAreRefusedWithDetails) {
  Watched watched = Watch("missing", 0);
  EXPECT_EQ(watched.status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(watched.status), "JOB_NOT_FOUND");
  MakeJob("a", 2);
  watched = Watch("a", 99);
  EXPECT_EQ(watched.status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(watched.status.message()), HasSubstr("allowed: 0 to 3"));
  watched = Watch("a", -1);
  EXPECT_EQ(ProblemsOf(watched.status)[0].field(), "after_seq");
  watched = Watch("../a", 0);
  EXPECT_EQ(ProblemsOf(watched.status)[0].field(), "job_id");
}

TEST_F(StreamsTest, DeletingTheJobEndsItsWatches) {
  MakeJob("a", 2);
  Watched watched;
  std::thread thread([&] { watched = Watch("a", 0); });
  while (hub_->watchers() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (v1::JobState state : {v1::QUEUED, v1::CANCELLED}) SetState("a", state);
  thread.join();
  EXPECT_TRUE(watched.status.ok());
  ASSERT_TRUE(store_->WriteSync([](StoreWriter& writer) { return writer.DeleteJob("a"); }).ok());
  EXPECT_EQ(Watch("a", 0).status.code(), absl::StatusCode::kNotFound);
}

// Clients that go away at any moment leave nothing behind.
TEST_F(StreamsTest, CancelledWatchesAreForgotten) {
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  MakeJob("a", 300);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop) Append("a", "line");
  });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + t);
      for (int i = 0; i < 50; ++i) {
        Watched watched = Watch("a", random() % 300, 1 + random() % 50);
        EXPECT_EQ(watched.status.code(), absl::StatusCode::kCancelled);
      }
    });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  writer.join();
  for (int i = 0; i < 400 && hub_->watchers() > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(hub_->watchers(), 0);
}

// A client that does not read costs the server a bounded amount and hinders nobody.
TEST_F(StreamsTest, AWatcherThatDoesNotReadHindersNobody) {
  MakeJob("a");
  grpc::ClientContext context;
  v1::WatchJobRequest request;
  request.set_job_id("a");
  auto stuck = stub_->WatchJob(&context, request);
  std::thread reader;
  Watched watched;
  reader = std::thread([&] { watched = Watch("a", 0); });
  const std::string text(4000, 'x');
  for (int i = 0; i < 3000; ++i) {
    v1::JobEvent event;
    event.mutable_log()->set_text(text);
    store_->Write([event](StoreWriter& writer) { return writer.AppendEvent("a", event).status(); },
                  nullptr);
  }
  Succeed("a");
  reader.join();
  EXPECT_TRUE(watched.status.ok());
  EXPECT_EQ(watched.events.size(), 3005u);
  // And it catches up from the store once it does read.
  v1::JobEvent event;
  int64_t seq = 0;
  while (stuck->Read(&event)) ASSERT_EQ(event.seq(), ++seq);
  EXPECT_EQ(seq, 3005);
  EXPECT_TRUE(stuck->Finish().ok());
}

TEST_F(StreamsTest, ShutdownTellsWatchersWhereToResume) {
  MakeJob("a", 5);
  grpc::ClientContext context;
  v1::WatchJobRequest request;
  request.set_job_id("a");
  request.set_after_seq(2);
  auto reader = stub_->WatchJob(&context, request);
  v1::JobEvent event;
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(reader->Read(&event));
  server_->StopAccepting();
  EXPECT_FALSE(reader->Read(&event));
  const absl::Status status = FromGrpcStatus(reader->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("resume with after_seq=6"));
  EXPECT_EQ(ReasonOf(status), "SERVER_STOPPING");
  const absl::Time start = absl::Now();
  server_->Shutdown(absl::Seconds(5));
  EXPECT_LT(absl::Now() - start, absl::Seconds(4));
}

TEST_F(StreamsTest, UploadsInChunksAndResumes) {
  std::string bytes;
  for (int i = 0; i < 300000; ++i) bytes += static_cast<char>(i * 7);
  v1::UploadFileResponse response;
  // The connection breaks off in the middle: what came is kept.
  absl::Status status = Upload(Header(bytes), {bytes.substr(0, 100000)}, &response);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  v1::QueryUploadRequest query;
  query.set_sha256(Sha256Hex(bytes));
  v1::QueryUploadResponse progress;
  ASSERT_TRUE(Call(&v1::FineTuningService::Stub::QueryUpload, query, &progress).ok());
  EXPECT_EQ(progress.received_bytes(), 100000u);
  EXPECT_FALSE(progress.complete());
  status = Upload(Header(bytes, 100000), {bytes.substr(100000, 150000), bytes.substr(250000)},
                  &response);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(response.uri(), "upload:" + Sha256Hex(bytes));
  // The same bytes again: done at once.
  response.Clear();
  ASSERT_TRUE(Upload(Header(bytes), {}, &response).ok());
  EXPECT_EQ(response.size_bytes(), bytes.size());
}

TEST_F(StreamsTest, BadUploadsAreRefusedWithDetails) {
  v1::UploadFileResponse response;
  const std::string bytes(1000, 'a');
  auto field = [&](const v1::UploadHeader& header, const std::vector<std::string>& chunks) {
    const absl::Status status = Upload(header, chunks, &response);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    const auto problems = ProblemsOf(status);
    return problems.empty() ? "" : problems[0].field();
  };
  v1::UploadHeader header = Header(bytes);
  header.set_sha256("zz");
  EXPECT_EQ(field(header, {}), "header.sha256");
  header = Header(bytes);
  header.set_size_bytes(0);
  EXPECT_EQ(field(header, {}), "header.size_bytes");
  header.set_size_bytes(UINT64_MAX);
  EXPECT_EQ(field(header, {}), "header.size_bytes");
  EXPECT_EQ(field(Header(bytes, 1001), {}), "header.offset");
  EXPECT_EQ(field(Header(bytes), {bytes, "one more"}), "chunk");
  const std::string large(kMaxChunkBytes + 1, 'a');
  EXPECT_EQ(field(Header(large), {large}), "chunk");
  // No header at all.
  grpc::ClientContext context;
  auto writer = stub_->UploadFile(&context, &response);
  v1::UploadFileRequest message;
  message.set_chunk("x");
  writer->Write(message);
  writer->WritesDone();
  EXPECT_EQ(ProblemsOf(FromGrpcStatus(writer->Finish()))[0].field(), "header");
}

TEST_F(StreamsTest, DownloadsFromAnyOffset) {
  std::string bytes;
  for (int i = 0; i < 1000000; ++i) bytes += static_cast<char>(i * 13 >> 3);
  MakeJob("a");
  WriteArtifact("a", "adapter/x.bin", bytes);
  WriteArtifact("a", "empty", "");
  ASSERT_EQ(symlink("/etc/passwd", (dir_ / "jobs/a/artifacts/link").c_str()), 0);
  for (uint64_t offset :
       {uint64_t{0}, uint64_t{1}, uint64_t{262144}, uint64_t{999999}, uint64_t{1000000}}) {
    std::string got;
    v1::DownloadArtifactResponse first;
    const absl::Status status = Download("adapter/x.bin", offset, &got, &first);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(got, bytes.substr(offset));
    EXPECT_EQ(first.size_bytes(), bytes.size());
    EXPECT_EQ(first.sha256(), Sha256Hex(bytes));
  }
  std::string got;
  v1::DownloadArtifactResponse first;
  EXPECT_TRUE(Download("empty", 0, &got, &first).ok());
  EXPECT_EQ(first.sha256(), Sha256Hex(""));
  EXPECT_EQ(Download("adapter/x.bin", 1000001, &got, nullptr).code(),
            absl::StatusCode::kOutOfRange);
  const absl::Status nothing = Download("nothing", 0, &got, nullptr);
  EXPECT_EQ(nothing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(nothing), "ARTIFACT_NOT_FOUND");
  EXPECT_EQ(ProblemsOf(Download("", 0, &got, nullptr))[0].field(), "path");
  // Nothing outside the job's artifacts can be read.
  EXPECT_FALSE(Download("../../a/artifacts/empty", 0, &got, nullptr).ok());
  EXPECT_FALSE(Download("/etc/passwd", 0, &got, nullptr).ok());
  EXPECT_FALSE(Download("link", 0, &got, nullptr).ok());
  EXPECT_EQ(got, "");
}

}  // namespace
}  // namespace finetuned
