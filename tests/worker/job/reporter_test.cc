// The spool and the session that sends it, beside a server that comes, goes and forgets what it did
// not acknowledge.
#include "worker/job/reporter.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <thread>

#include "finetuned/v1/worker.grpc.pb.h"
#include "google/protobuf/io/coded_stream.h"
#include "proto/base/file_util.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::vector<v1::SpoolRecord> ReadSpool(const std::string& path) {
  const std::string bytes = *ReadFile(path);
  google::protobuf::io::CodedInputStream stream(reinterpret_cast<const uint8_t*>(bytes.data()),
                                                static_cast<int>(bytes.size()));
  std::vector<v1::SpoolRecord> records;
  uint64_t length = 0;
  while (stream.ReadVarint64(&length)) {
    std::string record;
    EXPECT_TRUE(stream.ReadString(&record, static_cast<int>(length)));
    EXPECT_TRUE(records.emplace_back().ParseFromString(record));
  }
  return records;
}

v1::Progress Done(v1::Stage stage, int64_t done, int64_t total) {
  v1::Progress progress;
  progress.set_stage(stage);
  progress.set_done(done);
  progress.set_total(total);
  return progress;
}

class ReporterTest : public testing::Test {
 protected:
  std::unique_ptr<Reporter> Start(const std::string& socket = "", int64_t limit_seconds = 0) {
    ReporterOptions options;
    options.spool_path = dir_ / "spool.pb";
    options.socket = socket;
    options.token = "token";
    options.job_id = "job";
    options.attempt = 3;
    options.runtime_limit_seconds = limit_seconds;
    auto reporter = Reporter::Start(options);
    EXPECT_TRUE(reporter.ok()) << reporter.status();
    return std::move(reporter).value();
  }
  std::vector<v1::SpoolRecord> Spool() { return ReadSpool(dir_ / "spool.pb"); }

  TempDir dir_;
};

TEST_F(ReporterTest, EveryRecordIsInTheSpoolInOrderBeforeTheCallReturns) {
  const auto reporter = Start();
  reporter->StageStarted(v1::TRAINING);
  v1::JobEvent event;
  event.mutable_metrics()->set_step(1);
  reporter->Emit(event);
  EXPECT_EQ(Spool().size(), 2u);
  reporter->Log(v1::WARNING, "text");
  reporter->StageFinished(v1::TRAINING, 2.5, /*reused=*/true);
  v1::AttemptEnd end;
  end.set_outcome(v1::AttemptEnd::SUCCEEDED);
  reporter->End(end, seconds(5));  // no session: nobody to wait for

  const std::vector<v1::SpoolRecord> records = Spool();
  ASSERT_EQ(records.size(), 5u);
  for (size_t i = 0; i < records.size(); ++i)
    EXPECT_EQ(records[i].spool_seq(), static_cast<int64_t>(i) + 1);
  EXPECT_EQ(records[0].event().stage().stage(), v1::TRAINING);
  EXPECT_EQ(records[1].event().metrics().step(), 1);
  EXPECT_EQ(records[1].event().level(), v1::INFO);
  EXPECT_EQ(records[1].event().attempt(), 3);
  EXPECT_TRUE(records[1].event().has_time());
  EXPECT_EQ(records[2].event().level(), v1::WARNING);
  EXPECT_TRUE(records[3].event().stage().finished());
  EXPECT_TRUE(records[3].event().stage().reused());
  EXPECT_EQ(records[4].end().outcome(), v1::AttemptEnd::SUCCEEDED);
}

TEST_F(ReporterTest, ProgressIsThinnedButFirstAndLastAreKept) {
  const auto reporter = Start();
  for (int i = 1; i <= 1000; ++i) reporter->Progress(Done(v1::LOADING_MODEL, i, 1000));
  reporter->Progress(Done(v1::TRAINING, 1, 1000));  // another stage: its first
  std::vector<int64_t> done;
  for (const auto& record : Spool()) done.push_back(record.event().progress().done());
  ASSERT_GE(done.size(), 3u);
  EXPECT_LE(done.size(), 10u);
  EXPECT_EQ(done.front(), 1);
  EXPECT_EQ(done[done.size() - 2], 1000);
  EXPECT_EQ(done.back(), 1);
}

TEST_F(ReporterTest, ThreadsNeverMixTheirRecords) {
  const auto reporter = Start();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i)
        reporter->Log(v1::DEBUG,
                      std::to_string(t) + " " + std::string(static_cast<size_t>(i), 'x'));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::vector<v1::SpoolRecord> records = Spool();
  ASSERT_EQ(records.size(), 800u);
  std::map<char, size_t> next;
  for (size_t i = 0; i < records.size(); ++i) {
    EXPECT_EQ(records[i].spool_seq(), static_cast<int64_t>(i) + 1);
    const std::string& text = records[i].event().log().text();
    EXPECT_EQ(text.size(), 2 + next[text[0]]++);
  }
}

TEST_F(ReporterTest, StopsOnRequestAndWhenTheTimeIsOver) {
  const auto reporter = Start();
  EXPECT_EQ(reporter->stop_requested(), StopRequest::kNone);
  reporter->RequestPause();
  EXPECT_EQ(reporter->stop_requested(), StopRequest::kPause);
  const auto limited = Start("", 1);
  EXPECT_EQ(limited->stop_requested(), StopRequest::kNone);
  std::this_thread::sleep_for(milliseconds(1050));
  EXPECT_EQ(limited->stop_requested(), StopRequest::kTimeout);
}

TEST_F(ReporterTest, ASpoolThatCannotBeMadeIsAnError) {
  ReporterOptions options;
  options.spool_path = dir_ / "no/such/directory/spool.pb";
  const auto reporter = Reporter::Start(options);
  ASSERT_FALSE(reporter.ok());
  EXPECT_THAT(std::string(reporter.status().message()),
              testing::HasSubstr("no/such/directory/spool.pb"));
}

TEST_F(ReporterTest, WithoutAServerTheEndWaitsOnlySoLong) {
  const auto reporter = Start(dir_ / "nobody.sock");
  const auto start = std::chrono::steady_clock::now();
  reporter->End({}, seconds(1));
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(4));
  EXPECT_EQ(Spool().size(), 1u);
}

// Takes what is sent; `durable` is what it has acknowledged and would still know after a restart.
class FakeServer : public v1::WorkerService::Service {
 public:
  struct Durable {
    std::mutex mutex;
    std::vector<v1::SpoolRecord> records;
    int registrations = 0;
  };
  FakeServer(const std::string& socket, Durable& durable, int break_after = 1 << 30)
      : durable_(durable), break_after_(break_after) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + socket, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeServer() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::atomic<v1::Command::Kind> command{v1::Command::KIND_UNSPECIFIED};

 private:
  grpc::Status Register(grpc::ServerContext*, const v1::RegisterRequest* request,
                        v1::RegisterResponse* response) override {
    std::lock_guard lock(durable_.mutex);
    ++durable_.registrations;
    if (request->attempt_token() != "token" || request->job_id() != "job" ||
        request->attempt() != 3) {
      return {grpc::StatusCode::PERMISSION_DENIED, "unknown token"};
    }
    response->set_acknowledged_spool_seq(static_cast<int64_t>(durable_.records.size()));
    response->set_heartbeat_interval_ms(100);
    return grpc::Status::OK;
  }
  grpc::Status Session(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::ServerMessage, v1::WorkerMessage>* stream) override {
    v1::WorkerMessage message;
    int taken = 0;
    while (stream->Read(&message)) {
      if (const v1::Command::Kind kind = command.exchange(v1::Command::KIND_UNSPECIFIED);
          kind != v1::Command::KIND_UNSPECIFIED) {
        v1::ServerMessage order;
        order.mutable_command()->set_kind(kind);
        stream->Write(order);
      }
      if (!message.has_record()) continue;
      if (++taken > break_after_)
        return {grpc::StatusCode::UNAVAILABLE, "gone"};  // this record is lost with it
      v1::ServerMessage acknowledgement;
      {
        std::lock_guard lock(durable_.mutex);
        durable_.records.push_back(message.record());
        acknowledgement.set_acknowledged_spool_seq(message.record().spool_seq());
      }
      stream->Write(acknowledgement);
    }
    return grpc::Status::OK;
  }

  Durable& durable_;
  const int break_after_;
  std::unique_ptr<grpc::Server> server_;
};

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 600; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(50));
  }
  return false;
}

TEST_F(ReporterTest, NothingIsLostOrRepeatedWhenTheServerComesAndGoes) {
  FakeServer::Durable durable;
  const std::string socket = dir_ / "server.sock";
  const auto reporter = Start(socket);
  reporter->Log(v1::INFO, "before there is a server");
  int written = 1;
  for (int life = 0; life < 2; ++life) {
    FakeServer server(socket, durable, /*break_after=*/5 + life);
    for (int i = 0; i < 40; ++i) reporter->Log(v1::INFO, std::to_string(written++));
    EXPECT_TRUE(Eventually([&] {
      std::lock_guard lock(durable.mutex);
      return durable.records.size() >= static_cast<size_t>(10 * (life + 1));
    }));
  }
  FakeServer server(socket, durable);
  v1::AttemptEnd end;
  end.set_outcome(v1::AttemptEnd::PAUSED);
  reporter->End(end, seconds(30));
  std::lock_guard lock(durable.mutex);
  ASSERT_EQ(durable.records.size(), static_cast<size_t>(written) + 1);
  for (size_t i = 0; i < durable.records.size(); ++i)
    EXPECT_EQ(durable.records[i].spool_seq(), static_cast<int64_t>(i) + 1);
  EXPECT_EQ(durable.records.back().end().outcome(), v1::AttemptEnd::PAUSED);
  EXPECT_GT(durable.registrations, 3);
}

TEST_F(ReporterTest, CommandsOfTheServerArrive) {
  FakeServer::Durable durable;
  FakeServer server(dir_ / "server.sock", durable);
  const auto reporter = Start(dir_ / "server.sock");
  server.command = v1::Command::PAUSE;
  EXPECT_TRUE(Eventually([&] { return reporter->stop_requested() == StopRequest::kPause; }));
  server.command = v1::Command::CANCEL;
  EXPECT_TRUE(Eventually([&] { return reporter->stop_requested() == StopRequest::kCancel; }));
}

TEST_F(ReporterTest, AFencedAttemptEndsItsProcess) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        FakeServer::Durable durable;
        FakeServer server(dir_ / "server.sock", durable);
        server.command = v1::Command::FENCED;
        const auto reporter = Start(dir_ / "server.sock");
        std::this_thread::sleep_for(seconds(30));
      },
      testing::ExitedWithCode(75), "a newer attempt has this job");
}

}  // namespace
}  // namespace finetuned
