// The threads of the SQLite store: one writer that commits groups, a few readers over WAL
// snapshots.
#include <algorithm>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/base/status_macros.h"
#include "server/store/job_store.h"
#include "server/store/migration.h"
#include "server/store/sqlite.h"
#include "server/store/sqlite_session.h"

namespace finetuned {
namespace {

// A group ends here, so that the first of many writes does not wait for all of them. A commit costs
// about as much as this many small writes.
constexpr size_t kMaxGroup = 256;

class SqliteStore final : public JobStore {
 public:
  SqliteStore(SqliteStoreOptions options, Database writer, std::vector<Database> readers)
      : options_(std::move(options)),
        writer_database_(std::move(writer)),
        reader_databases_(std::move(readers)) {
    writer_thread_ = std::thread([this] { WriterLoop(); });
    for (Database& database : reader_databases_) {
      reader_threads_.emplace_back([this, &database] { ReaderLoop(database); });
    }
  }

  ~SqliteStore() override { Close(); }

  void Write(WriteFn write, DoneFn done) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!closing_) {
        writes_.push_back({std::move(write), std::move(done)});
        write_wake_.notify_one();
        return;
      }
    }
    if (done) done(absl::UnavailableError("the store is closed: the server is shutting down"));
  }

  void Read(ReadFn read) override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!closing_) {
        reads_.push_back(std::move(read));
        read_wake_.notify_one();
        return;
      }
    }
    Database closed;
    SqliteSession session(&closed);
    read(session);
  }

  void SetEventListener(EventListener listener) override {
    std::lock_guard<std::mutex> lock(mutex_);
    listener_ = std::make_shared<EventListener>(std::move(listener));
  }

  void Close() override {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closing_ = true;
      write_wake_.notify_all();
      read_wake_.notify_all();
    }
    std::lock_guard<std::mutex> joining(join_mutex_);
    if (writer_thread_.joinable()) writer_thread_.join();
    for (std::thread& thread : reader_threads_) {
      if (thread.joinable()) thread.join();
    }
    reader_databases_.clear();
    writer_database_ = Database();  // the last connection to close folds the WAL into the database
  }

 private:
  struct PendingWrite {
    WriteFn write;
    DoneFn done;
    absl::Status status;
    std::vector<SqliteSession::AppendedEvent> events;
  };

  void WriterLoop() {
    while (true) {
      std::vector<PendingWrite> group;
      std::shared_ptr<EventListener> listener;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        write_wake_.wait(lock, [this] { return closing_ || !writes_.empty(); });
        if (writes_.empty()) return;
        while (!writes_.empty() && group.size() < kMaxGroup) {
          group.push_back(std::move(writes_.front()));
          writes_.pop_front();
        }
        listener = listener_;
      }
      const absl::Time begin = absl::Now();
      const absl::Status committed = CommitGroup(group);
      if (options_.on_commit) options_.on_commit(absl::Now() - begin);
      // Watchers hear of an event before the caller that appended it does: whatever the caller does
      // next comes after.
      for (PendingWrite& write : group) {
        if (!committed.ok() && write.status.ok()) write.status = committed;
        if (!write.status.ok() || listener == nullptr || !*listener) continue;
        for (SqliteSession::AppendedEvent& event : write.events) {
          (*listener)(event.job_id, event.seq, std::move(event.bytes));
        }
      }
      for (PendingWrite& write : group) {
        if (write.done) write.done(std::move(write.status));
      }
    }
  }

  // Runs the group in one transaction, each write in a savepoint of its own. An error means that
  // nothing of the group is stored; a write's own error is in its `status` and undoes that write
  // alone.
  absl::Status CommitGroup(std::vector<PendingWrite>& group) {
    Database& db = writer_database_;
    SqliteSession session(&db);
    FT_RETURN_IF_ERROR(db.Prepare("BEGIN IMMEDIATE").Run());
    const auto fail = [&](absl::Status status) {
      if (db.InTransaction())
        (void)db.Prepare("ROLLBACK").Run();  // the first error is the one to tell
      return absl::Status(status);
    };
    for (PendingWrite& write : group) {
      if (absl::Status status = db.Prepare("SAVEPOINT w").Run(); !status.ok()) return fail(status);
      write.status = write.write(session);
      write.events = session.TakeEvents();
      // On a full disk SQLite may have undone the whole transaction: then no write of the group is
      // there.
      if (!db.InTransaction()) {
        return write.status.ok() ? absl::InternalError("job store: the transaction ended by itself")
                                 : write.status;
      }
      if (!write.status.ok()) {
        if (absl::Status status = db.Prepare("ROLLBACK TO w").Run(); !status.ok())
          return fail(status);
      }
      if (absl::Status status = db.Prepare("RELEASE w").Run(); !status.ok()) return fail(status);
    }
    if (absl::Status status = db.Prepare("COMMIT").Run(); !status.ok()) return fail(status);
    return absl::OkStatus();
  }

  void ReaderLoop(Database& db) {
    while (true) {
      ReadFn read;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        read_wake_.wait(lock, [this] { return closing_ || !reads_.empty(); });
        if (reads_.empty()) return;
        read = std::move(reads_.front());
        reads_.pop_front();
      }
      // Without a transaction each statement would have a snapshot of its own. If BEGIN fails the
      // statements fail too.
      (void)db.Prepare("BEGIN").Run();
      SqliteSession session(&db);
      read(session);
      if (db.InTransaction()) (void)db.Prepare("COMMIT").Run();
    }
  }

  const SqliteStoreOptions options_;
  Database writer_database_;
  std::vector<Database> reader_databases_;
  std::thread writer_thread_;
  std::vector<std::thread> reader_threads_;
  std::mutex join_mutex_;

  // Guards what follows. Not absl's: the packaged library is invisible to the thread sanitizer.
  std::mutex mutex_;
  std::condition_variable write_wake_, read_wake_;
  bool closing_ = false;
  std::deque<PendingWrite> writes_;
  std::deque<ReadFn> reads_;
  std::shared_ptr<EventListener> listener_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<JobStore>> OpenSqliteStore(const SqliteStoreOptions& options) {
  const auto explain = [&](const absl::Status& status) {
    if (!absl::IsDataLoss(status)) return status;
    return absl::DataLossError(absl::StrCat(
        std::string(status.message()), ". ", options.path,
        " is not readable as a database. Keep a copy of it, then restore a backup (", options.path,
        ".v*.backup) or salvage it: sqlite3 ", options.path, " .recover | sqlite3 new.db"));
  };
  absl::StatusOr<Database> writer = Database::Open(options.path, /*read_only=*/false);
  if (!writer.ok()) return explain(writer.status());
  FT_RETURN_IF_ERROR(CheckIntegrity(*writer, options.path));
  FT_RETURN_IF_ERROR(Migrate(*writer, options.path, Migrations()));
  std::vector<Database> readers;
  for (int i = 0; i < std::max(1, options.reader_threads); ++i) {
    FT_ASSIGN_OR_RETURN(Database reader, Database::Open(options.path, /*read_only=*/true));
    readers.push_back(std::move(reader));
  }
  return std::make_unique<SqliteStore>(options, *std::move(writer), std::move(readers));
}

}  // namespace finetuned
