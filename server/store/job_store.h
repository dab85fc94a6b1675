// JobStore: the durable truth about jobs, attempts, events and uploads.
//
// Threads: every method may be called from any thread and returns at once; no caller ever waits for the disk. Writes run
// on one writer thread, many to a commit (group commit, synchronous=FULL); reads run on a small pool of reader threads
// over a WAL snapshot. Callbacks run on store threads and must not block.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "finetuned/v1/service.pb.h"
#include "finetuned/v1/types.pb.h"

namespace finetuned {

// One run of a worker process for a job. The newest attempt of a job alone may write to it.
struct Attempt {
  std::string job_id;
  int32_t number = 0;         // from 1
  std::string token;          // secret the worker proves itself with
  int64_t pid = 0;            // 0 until started
  int64_t pid_start_ticks = 0;  // field 22 of /proc/<pid>/stat: tells a reused pid apart
  std::string device;         // "cpu", "cuda:0"
  uint64_t reserved_bytes = 0;
  absl::Time start_time = absl::InfinitePast();
  std::optional<absl::Time> end_time;   // set when the attempt is over
  int64_t acknowledged_spool_seq = 0;   // spool records durable in the store
  std::string outcome;        // "", "succeeded", "failed", "paused", "cancelled", "lost"
};

struct Upload {
  std::string sha256;
  uint64_t size_bytes = 0;
  std::string name;
  absl::Time create_time;
};

// What a read sees: one consistent snapshot.
class StoreReader {
 public:
  virtual ~StoreReader() = default;
  // NOT_FOUND names the id.
  virtual absl::StatusOr<v1::Job> GetJob(std::string_view job_id) = 0;
  virtual absl::StatusOr<std::optional<v1::Job>> FindByRequestId(std::string_view request_id) = 0;
  // Filter, order and page as in ListJobsRequest; INVALID_ARGUMENT for an unknown order or page token.
  virtual absl::StatusOr<v1::ListJobsResponse> ListJobs(const v1::ListJobsRequest& request) = 0;
  // All jobs in one of these states, by (priority desc, create_time, job_id).
  virtual absl::StatusOr<std::vector<v1::Job>> JobsInStates(const std::vector<v1::JobState>& states) = 0;
  // Serialized JobEvents with seq > after_seq, in order, at most `limit`.
  virtual absl::StatusOr<std::vector<std::shared_ptr<const std::string>>> EventsAfter(
      std::string_view job_id, int64_t after_seq, int limit) = 0;
  virtual absl::StatusOr<int64_t> LastSeq(std::string_view job_id) = 0;
  virtual absl::StatusOr<std::vector<Attempt>> Attempts(std::string_view job_id) = 0;
  virtual absl::StatusOr<std::vector<Attempt>> LiveAttempts() = 0;  // end_time unset
  virtual absl::StatusOr<std::optional<Attempt>> AttemptByToken(std::string_view token) = 0;
  virtual absl::StatusOr<std::optional<Upload>> FindUpload(std::string_view sha256) = 0;
  virtual absl::StatusOr<std::vector<std::pair<v1::JobState, int64_t>>> CountByState() = 0;
};

// What a write sees and may change. A transaction that returns an error leaves no trace; others of its group commit.
class StoreWriter : public StoreReader {
 public:
  // ALREADY_EXISTS for a job id or request id that is taken.
  virtual absl::Status InsertJob(const v1::Job& job) = 0;
  // Replaces the job. FAILED_PRECONDITION when the change of state is not in the table of legal transitions.
  virtual absl::Status UpdateJob(const v1::Job& job) = 0;
  virtual absl::Status DeleteJob(std::string_view job_id) = 0;
  // Assigns the next seq of the job (and the time, if unset) and stores the event; returns the event as stored.
  virtual absl::StatusOr<v1::JobEvent> AppendEvent(std::string_view job_id, v1::JobEvent event) = 0;
  virtual absl::Status InsertAttempt(const Attempt& attempt) = 0;
  virtual absl::Status UpdateAttempt(const Attempt& attempt) = 0;
  virtual absl::Status PutUpload(const Upload& upload) = 0;
};

class JobStore {
 public:
  virtual ~JobStore() = default;

  using WriteFn = std::function<absl::Status(StoreWriter&)>;
  using ReadFn = std::function<void(StoreReader&)>;
  using DoneFn = std::function<void(absl::Status)>;

  // Runs `write` on the writer thread; `done` (may be null) is called once, after the commit that makes it durable or
  // with the error that undid it. Writes run in the order of the calls.
  virtual void Write(WriteFn write, DoneFn done) = 0;
  // Runs `read` on a reader thread; it sees every write whose `done` was called before this call.
  virtual void Read(ReadFn read) = 0;

  // Called (on the writer thread, after the commit) for each appended event; must not block. One listener; set once.
  using EventListener =
      std::function<void(const std::string& job_id, int64_t seq, std::shared_ptr<const std::string> event)>;
  virtual void SetEventListener(EventListener listener) = 0;

  // Blocking forms for start-up and tests.
  absl::Status WriteSync(WriteFn write);
  void ReadSync(const ReadFn& read);

  // Finishes what was accepted, then stops the threads.
  virtual void Close() = 0;
};

struct SqliteStoreOptions {
  std::string path;       // database file; its directory must exist
  int reader_threads = 2;
  std::function<void(absl::Duration)> on_commit;  // commit time, for metrics; may be null
};

// Opens or creates the database, checks its integrity and migrates it (after a backup beside it). FAILED_PRECONDITION
// for a schema newer than this build, DATA_LOSS for a damaged file.
absl::StatusOr<std::unique_ptr<JobStore>> OpenSqliteStore(const SqliteStoreOptions& options);

}  // namespace finetuned
