// StoreReader and StoreWriter over one SQLite connection, inside a transaction that the caller
// opened.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/store/job_store.h"
#include "server/store/sqlite.h"

namespace finetuned {

// Belongs to the thread that uses it. Does not own the database.
class SqliteSession final : public StoreWriter {
 public:
  struct AppendedEvent {
    std::string job_id;
    int64_t seq;
    std::shared_ptr<const std::string> bytes;
  };

  explicit SqliteSession(Database* database) : db_(*database) {}

  absl::StatusOr<v1::Job> GetJob(std::string_view job_id) override;
  absl::StatusOr<std::optional<v1::Job>> FindByRequestId(std::string_view request_id) override;
  absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request) override;
  absl::StatusOr<std::vector<v1::Job>> JobsInStates(
      const std::vector<v1::JobState>& states) override;
  absl::StatusOr<std::vector<std::shared_ptr<const std::string>>> EventsAfter(
      std::string_view job_id, int64_t after_seq, int limit) override;
  absl::StatusOr<int64_t> LastSeq(std::string_view job_id) override;
  absl::StatusOr<std::vector<Attempt>> Attempts(std::string_view job_id) override;
  absl::StatusOr<std::vector<Attempt>> LiveAttempts() override;
  absl::StatusOr<std::optional<Attempt>> AttemptByToken(std::string_view token) override;
  absl::StatusOr<std::optional<Upload>> FindUpload(std::string_view sha256) override;
  absl::StatusOr<std::vector<std::pair<v1::JobState, int64_t>>> CountByState() override;

  absl::Status InsertJob(const v1::Job& job) override;
  absl::Status UpdateJob(const v1::Job& job) override;
  absl::Status DeleteJob(std::string_view job_id) override;
  absl::StatusOr<v1::JobEvent> AppendEvent(std::string_view job_id, v1::JobEvent event) override;
  absl::Status InsertAttempt(const Attempt& attempt) override;
  absl::Status UpdateAttempt(const Attempt& attempt) override;
  absl::Status PutUpload(const Upload& upload) override;

  // Events appended since the last call, in order.
  std::vector<AppendedEvent> TakeEvents() { return std::exchange(events_, {}); }

 private:
  // OK, or NOT_FOUND naming the id.
  absl::Status RequireJob(std::string_view job_id);
  absl::Status PutLabels(const v1::Job& job, int64_t create_time);
  absl::StatusOr<std::vector<Attempt>> ReadAttempts(Statement statement);

  Database& db_;
  std::vector<AppendedEvent> events_;
};

// Columns that make a v1::Job: the blob and the newest seq of its log. For `FROM jobs j`.
inline constexpr char kJobColumns[] =
    "j.job, (SELECT coalesce(max(e.seq), 0) FROM events e WHERE e.job_id = j.job_id)";

// Unix nanoseconds; a time out of range gives the nearest.
int64_t TimestampNanos(const google::protobuf::Timestamp& time);

// Reads kJobColumns. DATA_LOSS for a blob that is no Job.
absl::StatusOr<v1::Job> ReadJob(const Statement& row);

}  // namespace finetuned
