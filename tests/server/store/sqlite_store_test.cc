#include <atomic>
#include <latch>
#include <mutex>
#include <thread>

#include "tests/server/store/store_fixture.h"

namespace finetuned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(StoreTest, JobSurvivesReopening) {
  v1::Job job = MakeJob("a");
  (*job.mutable_labels())["team"] = "search";
  (*job.mutable_metadata())["ticket"] = "17";
  job.mutable_submitted_spec();
  FT_OK(Insert(job));
  Reopen();
  const auto stored = Get("a");
  ASSERT_TRUE(stored.ok()) << stored.status();
  EXPECT_EQ(stored->SerializeAsString(), job.SerializeAsString());
}

TEST_F(StoreTest, MissingJobIsNamed) {
  const auto job = Get("no-such");
  EXPECT_TRUE(absl::IsNotFound(job.status()));
  EXPECT_THAT(std::string(job.status().message()), HasSubstr("'no-such'"));
}

TEST_F(StoreTest, TakenIdsAreRefused) {
  FT_OK(Insert(MakeJob("a")));
  EXPECT_TRUE(absl::IsAlreadyExists(Insert(MakeJob("a"))));
  v1::Job other = MakeJob("b");
  other.set_request_id("request-a");
  const absl::Status status = Insert(other);
  EXPECT_TRUE(absl::IsAlreadyExists(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("request-a"));
  EXPECT_TRUE(absl::IsNotFound(Get("b").status()));
  // No request id: any number of jobs.
  for (const char* id : {"c", "d"}) {
    v1::Job anonymous = MakeJob(id);
    anonymous.clear_request_id();
    FT_OK(Insert(anonymous));
  }
}

TEST_F(StoreTest, RequestIdFindsItsJobAndOutlivesIt) {
  FT_OK(Insert(MakeJob("a")));
  store_->ReadSync([](StoreReader& reader) {
    const auto found = reader.FindByRequestId("request-a");
    ASSERT_TRUE(found.ok() && found->has_value());
    EXPECT_EQ((*found)->job_id(), "a");
    const auto missing = reader.FindByRequestId("request-b");
    ASSERT_TRUE(missing.ok());
    EXPECT_FALSE(missing->has_value());
  });
  FT_OK(store_->WriteSync([](StoreWriter& writer) { return writer.DeleteJob("a"); }));
  v1::Job again = MakeJob("b");
  again.set_request_id("request-a");
  EXPECT_TRUE(absl::IsAlreadyExists(Insert(again)));
}

TEST_F(StoreTest, ConcurrentSubmitsWithOneRequestIdMakeOneJob) {
  std::atomic<int> made{0}, found{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([&, i] {
      const absl::Status status = store_->WriteSync([&](StoreWriter& writer) -> absl::Status {
        auto existing = writer.FindByRequestId("same");
        if (!existing.ok()) return existing.status();
        if (existing->has_value()) {
          ++found;
          return absl::OkStatus();
        }
        v1::Job job = MakeJob(absl::StrCat("job-", i));
        job.set_request_id("same");
        ++made;
        return writer.InsertJob(job);
      });
      EXPECT_TRUE(status.ok()) << status;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made, 1);
  EXPECT_EQ(found, 19);
}

TEST_F(StoreTest, IllegalChangeOfStateIsRefused) {
  FT_OK(Insert(MakeJob("a")));
  FT_OK(SetState("a", v1::QUEUED));
  const absl::Status status = SetState("a", v1::SUCCEEDED);
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("QUEUED and cannot become SUCCEEDED"));
  EXPECT_EQ(Get("a")->state(), v1::QUEUED);
  for (const v1::JobState state : {v1::STARTING, v1::RUNNING, v1::SUCCEEDED, v1::QUEUED})
    FT_OK(SetState("a", state));
}

TEST_F(StoreTest, WhatNeverChanges) {
  FT_OK(Insert(MakeJob("a")));
  v1::Job job = *Get("a");
  job.set_request_id("other");
  EXPECT_TRUE(
      absl::IsInvalidArgument(store_->WriteSync([&](StoreWriter& w) { return w.UpdateJob(job); })));
  job = *Get("a");
  job.mutable_create_time()->set_seconds(5);
  EXPECT_TRUE(
      absl::IsInvalidArgument(store_->WriteSync([&](StoreWriter& w) { return w.UpdateJob(job); })));
  EXPECT_TRUE(absl::IsNotFound(
      store_->WriteSync([&](StoreWriter& w) { return w.UpdateJob(MakeJob("zz")); })));
  v1::Job stateless = MakeJob("s");
  stateless.clear_state();
  EXPECT_TRUE(absl::IsInvalidArgument(Insert(stateless)));
}

TEST_F(StoreTest, EventsAreNumberedFromOneWithoutGaps) {
  FT_OK(Insert(MakeJob("a")));
  FT_OK(Insert(MakeJob("b")));
  for (int i = 1; i <= 5; ++i) {
    FT_OK(store_->WriteSync([&](StoreWriter& writer) -> absl::Status {
      auto event = writer.AppendEvent("a", LogEvent(absl::StrCat("line ", i)));
      EXPECT_EQ(event->seq(), i);
      EXPECT_TRUE(event->has_time());
      return writer.AppendEvent("b", LogEvent("other")).status();
    }));
  }
  // An undone append takes no number.
  EXPECT_TRUE(absl::IsAborted(store_->WriteSync([](StoreWriter& writer) -> absl::Status {
    EXPECT_EQ(writer.AppendEvent("a", LogEvent("undone"))->seq(), 6);
    return absl::AbortedError("on purpose");
  })));
  Reopen();
  store_->ReadSync([](StoreReader& reader) {
    EXPECT_EQ(*reader.LastSeq("a"), 5);
    const auto events = reader.EventsAfter("a", 2, 2);
    ASSERT_TRUE(events.ok());
    ASSERT_EQ(events->size(), 2u);
    v1::JobEvent event;
    ASSERT_TRUE(event.ParseFromString(*(*events)[1]));
    EXPECT_EQ(event.seq(), 4);
    EXPECT_EQ(event.log().text(), "line 4");
    EXPECT_TRUE(reader.EventsAfter("a", 5, 10)->empty());
    EXPECT_TRUE(absl::IsNotFound(reader.EventsAfter("none", 0, 10).status()));
    EXPECT_TRUE(absl::IsNotFound(reader.LastSeq("none").status()));
  });
  EXPECT_EQ(Get("a")->last_seq(), 5);
  EXPECT_EQ(Get("b")->last_seq(), 5);
}

TEST_F(StoreTest, AFailedWriteLeavesNoTraceAndDoesNotHarmItsGroup) {
  FT_OK(Insert(MakeJob("a")));
  // Hold the writer so that the next writes form one group.
  std::latch entered(1), release(1);
  store_->Write(
      [&](StoreWriter&) {
        entered.count_down();
        release.wait();
        return absl::OkStatus();
      },
      nullptr);
  entered.wait();
  std::latch done(3);
  absl::Status statuses[3];
  for (int i = 0; i < 3; ++i) {
    store_->Write(
        [i](StoreWriter& writer) -> absl::Status {
          if (auto status = writer.InsertJob(MakeJob(absl::StrCat("g", i))); !status.ok())
            return status;
          if (auto event = writer.AppendEvent("a", LogEvent("x")); !event.ok())
            return event.status();
          return i == 1 ? absl::CancelledError("no") : absl::OkStatus();
        },
        [&, i](absl::Status status) {
          statuses[i] = status;
          done.count_down();
        });
  }
  release.count_down();
  done.wait();
  EXPECT_TRUE(statuses[0].ok());
  EXPECT_TRUE(absl::IsCancelled(statuses[1]));
  EXPECT_TRUE(statuses[2].ok());
  EXPECT_TRUE(Get("g0").ok());
  EXPECT_TRUE(absl::IsNotFound(Get("g1").status()));
  EXPECT_TRUE(Get("g2").ok());
  EXPECT_EQ(Get("a")->last_seq(), 2);
}

TEST_F(StoreTest, ListenerHearsDurableEventsInOrder) {
  std::mutex mutex;
  std::vector<std::string> heard;
  store_->SetEventListener(
      [&](const std::string& job_id, int64_t seq, std::shared_ptr<const std::string> bytes) {
        std::lock_guard<std::mutex> lock(mutex);
        v1::JobEvent event;
        EXPECT_TRUE(event.ParseFromString(*bytes));
        EXPECT_EQ(event.seq(), seq);
        heard.push_back(absl::StrCat(job_id, ":", seq));
      });
  FT_OK(Insert(MakeJob("a")));
  FT_OK(store_->WriteSync([](StoreWriter& writer) -> absl::Status {
    (void)writer.AppendEvent("a", LogEvent("1"));
    return writer.AppendEvent("a", LogEvent("2")).status();
  }));
  (void)store_->WriteSync([](StoreWriter& writer) -> absl::Status {
    (void)writer.AppendEvent("a", LogEvent("undone"));
    return absl::AbortedError("on purpose");
  });
  FT_OK(store_->WriteSync(
      [](StoreWriter& writer) { return writer.AppendEvent("a", LogEvent("3")).status(); }));
  std::lock_guard<std::mutex> lock(mutex);
  EXPECT_THAT(heard, ElementsAre("a:1", "a:2", "a:3"));
}

TEST_F(StoreTest, WritesRunInTheOrderOfTheCallsAndReadsSeeThem) {
  FT_OK(Insert(MakeJob("a")));
  std::vector<int> order;
  std::latch done(200);
  for (int i = 0; i < 200; ++i) {
    store_->Write(
        [&order, i](StoreWriter& writer) {
          order.push_back(i);
          return writer.AppendEvent("a", LogEvent("x")).status();
        },
        [&, i](absl::Status status) {
          EXPECT_TRUE(status.ok()) << status;
          store_->Read([&, i](StoreReader& reader) {
            EXPECT_GE(*reader.LastSeq("a"), i + 1);
            done.count_down();
          });
        });
  }
  done.wait();
  for (int i = 0; i < 200; ++i) EXPECT_EQ(order[i], i);
}

TEST_F(StoreTest, AReadIsOneSnapshot) {
  FT_OK(Insert(MakeJob("a")));
  store_->ReadSync([&](StoreReader& reader) {
    EXPECT_EQ(*reader.LastSeq("a"), 0);
    FT_OK(store_->WriteSync(
        [](StoreWriter& writer) { return writer.AppendEvent("a", LogEvent("x")).status(); }));
    EXPECT_EQ(*reader.LastSeq("a"), 0);
  });
  EXPECT_EQ(Get("a")->last_seq(), 1);
}

TEST_F(StoreTest, AttemptsRoundTrip) {
  FT_OK(Insert(MakeJob("a")));
  Attempt attempt;
  attempt.job_id = "a";
  attempt.number = 1;
  attempt.token = "secret-1";
  attempt.device = "cuda:0";
  attempt.reserved_bytes = uint64_t{0xFFFFFFFFFFFFFFFF};
  FT_OK(store_->WriteSync([&](StoreWriter& writer) { return writer.InsertAttempt(attempt); }));
  EXPECT_TRUE(absl::IsAlreadyExists(
      store_->WriteSync([&](StoreWriter& w) { return w.InsertAttempt(attempt); })));
  attempt.pid = 4711;
  attempt.pid_start_ticks = 99;
  attempt.start_time = absl::FromUnixSeconds(1234);
  attempt.acknowledged_spool_seq = 17;
  FT_OK(store_->WriteSync([&](StoreWriter& writer) { return writer.UpdateAttempt(attempt); }));
  Reopen();
  store_->ReadSync([&](StoreReader& reader) {
    const auto live = reader.LiveAttempts();
    ASSERT_TRUE(live.ok());
    ASSERT_EQ(live->size(), 1u);
    const Attempt& read = live->front();
    EXPECT_EQ(read.job_id, "a");
    EXPECT_EQ(read.number, 1);
    EXPECT_EQ(read.token, "secret-1");
    EXPECT_EQ(read.pid, 4711);
    EXPECT_EQ(read.pid_start_ticks, 99);
    EXPECT_EQ(read.device, "cuda:0");
    EXPECT_EQ(read.reserved_bytes, attempt.reserved_bytes);
    EXPECT_EQ(read.start_time, attempt.start_time);
    EXPECT_FALSE(read.end_time.has_value());
    EXPECT_EQ(read.acknowledged_spool_seq, 17);
    EXPECT_EQ((*reader.AttemptByToken("secret-1"))->number, 1);
    EXPECT_FALSE(reader.AttemptByToken("secret-2")->has_value());
  });
  attempt.end_time = absl::FromUnixSeconds(2000);
  attempt.outcome = "lost";
  Attempt second;
  second.job_id = "a";
  second.number = 2;
  second.token = "secret-2";
  FT_OK(store_->WriteSync([&](StoreWriter& writer) -> absl::Status {
    if (auto status = writer.UpdateAttempt(attempt); !status.ok()) return status;
    return writer.InsertAttempt(second);
  }));
  store_->ReadSync([&](StoreReader& reader) {
    const auto all = reader.Attempts("a");
    ASSERT_EQ(all->size(), 2u);
    EXPECT_EQ(*(*all)[0].end_time, absl::FromUnixSeconds(2000));
    EXPECT_EQ((*all)[0].outcome, "lost");
    EXPECT_EQ((*all)[1].start_time, absl::InfinitePast());
    EXPECT_EQ(reader.LiveAttempts()->size(), 1u);
  });
  second.number = 3;
  EXPECT_TRUE(
      absl::IsNotFound(store_->WriteSync([&](StoreWriter& w) { return w.UpdateAttempt(second); })));
  second.job_id = "none";
  EXPECT_TRUE(
      absl::IsNotFound(store_->WriteSync([&](StoreWriter& w) { return w.InsertAttempt(second); })));
}

TEST_F(StoreTest, UploadsRoundTrip) {
  Upload upload{std::string(64, 'a'), 123, "data.jsonl", absl::FromUnixSeconds(7)};
  for (int i = 0; i < 2; ++i)
    FT_OK(store_->WriteSync([&](StoreWriter& writer) { return writer.PutUpload(upload); }));
  store_->ReadSync([&](StoreReader& reader) {
    const auto found = reader.FindUpload(upload.sha256);
    ASSERT_TRUE(found.ok() && found->has_value());
    EXPECT_EQ((*found)->size_bytes, 123u);
    EXPECT_EQ((*found)->name, "data.jsonl");
    EXPECT_EQ((*found)->create_time, upload.create_time);
    EXPECT_FALSE(reader.FindUpload(std::string(64, 'b'))->has_value());
  });
}

TEST_F(StoreTest, DeletingAJobRemovesAllOfIt) {
  v1::Job job = MakeJob("a");
  (*job.mutable_labels())["k"] = "v";
  FT_OK(Insert(job));
  FT_OK(store_->WriteSync([](StoreWriter& writer) -> absl::Status {
    Attempt attempt;
    attempt.job_id = "a";
    attempt.number = 1;
    attempt.token = "t";
    if (auto status = writer.InsertAttempt(attempt); !status.ok()) return status;
    if (auto event = writer.AppendEvent("a", LogEvent("x")); !event.ok()) return event.status();
    return writer.DeleteJob("a");
  }));
  EXPECT_TRUE(absl::IsNotFound(Get("a").status()));
  store_->ReadSync([](StoreReader& reader) {
    EXPECT_TRUE(reader.LiveAttempts()->empty());
    EXPECT_TRUE(reader.CountByState()->empty());
    v1::ListJobsRequest request;
    (*request.mutable_labels())["k"] = "v";
    EXPECT_EQ(reader.ListJobs(request)->jobs_size(), 0);
  });
  EXPECT_TRUE(absl::IsNotFound(
      store_->WriteSync([](StoreWriter& writer) { return writer.DeleteJob("a"); })));
}

TEST_F(StoreTest, CountsAndStates) {
  for (int i = 0; i < 4; ++i)
    FT_OK(Insert(MakeJob(absl::StrCat("j", i), /*create_seconds=*/10 - i, /*priority=*/i / 2)));
  FT_OK(SetState("j3", v1::QUEUED));
  FT_OK(SetState("j0", v1::CANCELLED));
  store_->ReadSync([](StoreReader& reader) {
    EXPECT_THAT(*reader.CountByState(),
                ElementsAre(std::pair(v1::VALIDATING, 2), std::pair(v1::QUEUED, 1),
                            std::pair(v1::CANCELLED, 1)));
    const auto jobs = reader.JobsInStates({v1::VALIDATING, v1::QUEUED});
    ASSERT_TRUE(jobs.ok()) << jobs.status();
    std::vector<std::string> ids;
    for (const v1::Job& job : *jobs) ids.push_back(job.job_id());
    EXPECT_THAT(ids, ElementsAre("j3", "j2", "j1"));
    EXPECT_TRUE(reader.JobsInStates({})->empty());
  });
}

TEST_F(StoreTest, AfterCloseEverythingAnswersUnavailable) {
  std::atomic<int> done{0};
  for (int i = 0; i < 50; ++i) {
    store_->Write(
        [i](StoreWriter& writer) { return writer.InsertJob(MakeJob(absl::StrCat("j", i))); },
        [&](absl::Status status) { done += status.ok(); });
  }
  store_->Close();
  EXPECT_EQ(done, 50) << "accepted writes are finished";
  EXPECT_TRUE(absl::IsUnavailable(Insert(MakeJob("late"))));
  EXPECT_TRUE(absl::IsUnavailable(Get("j1").status()));
  store_->Close();
  Reopen();
  EXPECT_TRUE(Get("j49").ok());
}

TEST_F(StoreTest, ManyThreadsReadAndWrite) {
  FT_OK(Insert(MakeJob("shared")));
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        EXPECT_TRUE(Insert(MakeJob(absl::StrCat("t", t, "-", i))).ok());
        EXPECT_TRUE(store_
                        ->WriteSync([](StoreWriter& w) {
                          return w.AppendEvent("shared", LogEvent("x")).status();
                        })
                        .ok());
        EXPECT_TRUE(Get(absl::StrCat("t", t, "-", i)).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Get("shared")->last_seq(), 200);
}

}  // namespace
}  // namespace finetuned
