// What the store's tests share: a store in a directory of its own, jobs and events to put in.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/store/job_store.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {

// FT_OK(store->WriteSync(…)): shows the status when it is an error.
#define FT_OK(expr)                                                \
  do {                                                             \
    const absl::Status ft_test_status = (expr);                    \
    ASSERT_TRUE(ft_test_status.ok()) << ft_test_status.ToString(); \
  } while (false)

inline v1::Job MakeJob(const std::string& id, int64_t create_seconds = 1000, int priority = 0) {
  v1::Job job;
  job.set_job_id(id);
  job.set_request_id("request-" + id);
  job.set_owner("anonymous");
  job.set_state(v1::VALIDATING);
  job.set_priority(priority);
  job.mutable_create_time()->set_seconds(create_seconds);
  return job;
}

inline v1::JobEvent LogEvent(const std::string& text) {
  v1::JobEvent event;
  event.set_level(v1::INFO);
  event.mutable_log()->set_text(text);
  return event;
}

class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }

  void Open() {
    auto store = OpenSqliteStore({.path = dir_ / "jobs.db"});
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void Reopen() {
    store_.reset();
    Open();
  }

  absl::Status Insert(const v1::Job& job) {
    return store_->WriteSync([&](StoreWriter& writer) { return writer.InsertJob(job); });
  }
  absl::Status SetState(const std::string& id, v1::JobState state) {
    return store_->WriteSync([&](StoreWriter& writer) -> absl::Status {
      auto job = writer.GetJob(id);
      if (!job.ok()) return job.status();
      job->set_state(state);
      return writer.UpdateJob(*job);
    });
  }
  absl::StatusOr<v1::Job> Get(const std::string& id) {
    absl::StatusOr<v1::Job> job = absl::UnknownError("not read");
    store_->ReadSync([&](StoreReader& reader) { job = reader.GetJob(id); });
    return job;
  }
  absl::StatusOr<v1::ListJobsResponse> List(const v1::ListJobsRequest& request) {
    absl::StatusOr<v1::ListJobsResponse> response = absl::UnknownError("not read");
    store_->ReadSync([&](StoreReader& reader) { response = reader.ListJobs(request); });
    return response;
  }

  TempDir dir_;
  std::unique_ptr<JobStore> store_;
};

}  // namespace finetuned
