// Records and losses as transactions on a real store, without processes.
#include "server/supervisor/job_changes.h"

#include "proto/base/status_macros.h"
#include "tests/server/store/store_fixture.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

class JobChangesTest : public StoreTest {
 protected:
  void SetUp() override {
    StoreTest::SetUp();
    FT_OK(store_->WriteSync([&](StoreWriter& store) -> absl::Status {
      v1::Job job = MakeJob("j");
      FT_RETURN_IF_ERROR(store.InsertJob(job));
      FT_RETURN_IF_ERROR(ChangeState(store, &job, v1::QUEUED, "", now_));
      return StartAttempt(store, &job);
    }));
  }

  absl::Status StartAttempt(StoreWriter& store, v1::Job* job) {
    Attempt attempt;
    attempt.job_id = "j";
    attempt.number = job->attempt() + 1;
    attempt.token = absl::StrCat("token-", attempt.number);
    attempt.device = "cpu";
    attempt.start_time = now_;
    job->set_attempt(attempt.number);
    FT_RETURN_IF_ERROR(store.InsertAttempt(attempt));
    return ChangeState(store, job, v1::STARTING, "", now_);
  }
  void Requeue(v1::JobState through) {
    FT_OK(store_->WriteSync([&](StoreWriter& store) -> absl::Status {
      FT_ASSIGN_OR_RETURN(v1::Job job, store.GetJob("j"));
      if (through != job.state()) FT_RETURN_IF_ERROR(ChangeState(store, &job, through, "", now_));
      return StartAttempt(store, &job);
    }));
  }

  absl::Status Ingest(int attempt, std::vector<v1::SpoolRecord> records, bool progressed = false) {
    return store_->WriteSync([&](StoreWriter& store) {
      return IngestRecords(store, "j", attempt, progressed, records, now_, &result_);
    });
  }
  absl::Status Lose(int attempt, v1::FailureReason reason, bool progressed = false) {
    LossReport report;
    report.reason = reason;
    report.message = "gone";
    report.progressed = progressed;
    return store_->WriteSync([&](StoreWriter& store) {
      return LoseAttempt(store, "j", attempt, report, now_, &result_);
    });
  }
  static v1::SpoolRecord Step(int64_t spool_seq) {
    v1::SpoolRecord record;
    record.set_spool_seq(spool_seq);
    record.mutable_event()->mutable_metrics()->set_step(spool_seq);
    return record;
  }
  static v1::SpoolRecord End(int64_t spool_seq, v1::AttemptEnd::Outcome outcome) {
    v1::SpoolRecord record;
    record.set_spool_seq(spool_seq);
    record.mutable_end()->set_outcome(outcome);
    return record;
  }
  void SetJobState(v1::JobState state) {
    FT_OK(store_->WriteSync([&](StoreWriter& store) -> absl::Status {
      FT_ASSIGN_OR_RETURN(v1::Job job, store.GetJob("j"));
      return ChangeState(store, &job, state, "", now_);
    }));
  }

  absl::Time now_ = absl::FromUnixSeconds(1700000000);
  IngestResult result_;
};

TEST_F(JobChangesTest, EachRecordCountsOnceAndInOrder) {
  FT_OK(Ingest(1, {Step(1), Step(2)}));
  EXPECT_EQ(result_.acknowledged_spool_seq, 2);
  EXPECT_EQ(result_.job.state(), v1::RUNNING);
  const int64_t events = result_.job.last_seq();
  // The same again, as after a reconnect, and from the spool file.
  FT_OK(Ingest(1, {Step(1), Step(2), Step(3)}));
  EXPECT_EQ(result_.acknowledged_spool_seq, 3);
  EXPECT_EQ(result_.job.last_seq(), events + 1);
  EXPECT_EQ(result_.job.metrics().step(), 3);
  // A gap stores nothing, not even what is before it in the same batch.
  EXPECT_EQ(Ingest(1, {Step(4), Step(6)}).code(), absl::StatusCode::kOutOfRange);
  FT_OK(Ingest(1, {}));
  EXPECT_EQ(result_.acknowledged_spool_seq, 3);
}

TEST_F(JobChangesTest, AnOlderAttemptIsFenced) {
  FT_OK(Ingest(1, {Step(1)}));
  FT_OK(Lose(1, v1::WORKER_LOST));
  EXPECT_EQ(result_.job.state(), v1::QUEUED);
  FT_OK(Ingest(1, {Step(2)}));  // over, and no newer one yet
  EXPECT_TRUE(result_.fenced);
  Requeue(v1::QUEUED);
  FT_OK(Ingest(2, {Step(1)}));
  const int64_t events = result_.job.last_seq();
  FT_OK(Ingest(1, {Step(2), End(3, v1::AttemptEnd::SUCCEEDED)}));
  EXPECT_TRUE(result_.fenced);
  EXPECT_EQ(result_.job.last_seq(), events);
  EXPECT_EQ(result_.job.state(), v1::RUNNING);
  FT_OK(Lose(1, v1::WORKER_LOST));
  EXPECT_TRUE(result_.fenced);
}

TEST_F(JobChangesTest, StateChangesOfAWorkerAreNotBelieved) {
  v1::SpoolRecord record;
  record.set_spool_seq(1);
  record.mutable_event()->mutable_state()->set_to(v1::SUCCEEDED);
  FT_OK(Ingest(1, {record}));
  EXPECT_EQ(result_.job.state(), v1::RUNNING);
  EXPECT_EQ(result_.acknowledged_spool_seq, 1);
}

TEST_F(JobChangesTest, RetriesEndWithoutProgressAndStartAfreshWithIt) {
  for (int attempt = 1; attempt <= 4; ++attempt) {
    FT_OK(Lose(attempt, v1::WORKER_CRASHED));
    EXPECT_EQ(result_.retry_failures, attempt);
    Requeue(v1::QUEUED);
  }
  FT_OK(Lose(5, v1::WORKER_CRASHED, /*progressed=*/true));
  EXPECT_EQ(result_.job.state(), v1::QUEUED);
  for (int attempt = 6; attempt <= 9; ++attempt) {
    Requeue(v1::QUEUED);
    FT_OK(Lose(attempt, v1::WORKER_CRASHED));
    EXPECT_EQ(result_.retry_failures, attempt - 5);
  }
  Requeue(v1::QUEUED);
  FT_OK(Lose(10, v1::WORKER_CRASHED));
  EXPECT_EQ(result_.job.state(), v1::FAILED);
  EXPECT_EQ(result_.job.failure().reason(), v1::WORKER_CRASHED);
}

TEST_F(JobChangesTest, AFullDiskWaitsInTheQueue) {
  v1::SpoolRecord end = End(1, v1::AttemptEnd::FAILED);
  end.mutable_end()->mutable_failure()->set_reason(v1::DISK_FULL);
  end.mutable_end()->mutable_failure()->set_message("no space left on device");
  FT_OK(Ingest(1, {end}));
  EXPECT_EQ(result_.job.state(), v1::QUEUED);
  EXPECT_EQ(result_.job.pending_reason(), v1::DISK);
  EXPECT_THAT(result_.job.pending_detail(), HasSubstr("no space left"));
}

TEST_F(JobChangesTest, TheWishOfAPersonDecidesWhatALossMeans) {
  FT_OK(Ingest(1, {Step(1)}));
  SetJobState(v1::PAUSING);
  FT_OK(Lose(1, v1::WORKER_CRASHED));
  EXPECT_EQ(result_.job.state(), v1::PAUSED);
  Requeue(v1::QUEUED);
  FT_OK(Ingest(2, {Step(1)}));
  SetJobState(v1::CANCELLING);
  FT_OK(Lose(2, v1::WORKER_CRASHED));
  EXPECT_EQ(result_.job.state(), v1::CANCELLED);
}

TEST_F(JobChangesTest, AJobThatEndedBeforeItSawTheCancelHasSucceeded) {
  FT_OK(Ingest(1, {Step(1)}));
  SetJobState(v1::CANCELLING);
  FT_OK(Ingest(1, {End(2, v1::AttemptEnd::SUCCEEDED)}));
  EXPECT_EQ(result_.job.state(), v1::SUCCEEDED);
}

TEST(RuntimeSeconds, CountsAttemptsAfterTheLastRerun) {
  std::vector<Attempt> attempts(3);
  const absl::Time start = absl::FromUnixSeconds(100);
  for (int i = 0; i < 3; ++i) {
    attempts[i].number = i + 1;
    attempts[i].start_time = start;
    attempts[i].end_time = start + absl::Seconds(10);
  }
  EXPECT_EQ(RuntimeSeconds(attempts, 0, start), 30);
  EXPECT_EQ(RuntimeSeconds(attempts, 2, start), 10);
}

}  // namespace
}  // namespace finetuned
