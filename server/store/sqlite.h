// A thin layer over SQLite's C interface: errors become absl::Status, statements are prepared once
// and reset by themselves. A Database and its statements belong to one thread at a time.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace finetuned {

// The last error of `db` as a Status a caller can act on: a full disk → RESOURCE_EXHAUSTED
// (IsDiskFull is true), damage → DATA_LOSS, a lock that did not come free in time or an I/O error →
// UNAVAILABLE, a read-only file or directory → PERMISSION_DENIED, a violated constraint →
// ALREADY_EXISTS, the rest → INTERNAL. The text begins with `what`.
absl::Status SqliteStatus(sqlite3* db, int code, const std::string& what);

// A prepared statement in use. Values are bound by position from 1; columns are read by position
// from 0. The first error of a bind is kept and returned by the next Step.
class Statement {
 public:
  // `owned`: the statement is finalized at the end, not only reset.
  Statement(sqlite3* db, sqlite3_stmt* stmt, bool owned, absl::Status error = absl::OkStatus());
  ~Statement();
  Statement(Statement&& other) noexcept;
  Statement& operator=(Statement&&) = delete;

  Statement& Bind(int index, int64_t value);
  // The text is copied.
  Statement& Bind(int index, std::string_view text);
  Statement& BindBlob(int index, std::string_view bytes);
  Statement& BindNull(int index);

  // True: a row is there. False: done.
  absl::StatusOr<bool> Step();
  // For statements without rows.
  absl::Status Run();

  int64_t Int(int column) const { return sqlite3_column_int64(stmt_, column); }
  bool IsNull(int column) const { return sqlite3_column_type(stmt_, column) == SQLITE_NULL; }
  // Valid until the next Step.
  std::string_view Bytes(int column) const;
  std::string Text(int column) const { return std::string(Bytes(column)); }

 private:
  void Note(int code);

  sqlite3* db_;
  sqlite3_stmt* stmt_;
  bool owned_;
  absl::Status error_;
};

class Database {
 public:
  // A Database that is not open: every statement fails with UNAVAILABLE "the store is closed".
  Database() = default;
  ~Database();
  Database(Database&& other) noexcept;
  Database& operator=(Database&& other) noexcept;

  // Opens or creates `path`, sets WAL, synchronous=FULL and a busy timeout of 10 s. `read_only`: no
  // statement may write. Errors as SqliteStatus, naming the path.
  static absl::StatusOr<Database> Open(const std::string& path, bool read_only);

  // Runs one or more statements and ignores their rows.
  absl::Status Exec(const std::string& sql);
  // The statement of `sql`, prepared once per connection. One use of the same text at a time.
  Statement Prepare(const std::string& sql);
  // For texts made from a request, of which there are too many to keep.
  Statement PrepareOnce(const std::string& sql);
  // Value of the first column of the first row; 0 when there is none.
  absl::StatusOr<int64_t> QueryInt(const std::string& sql);
  // True while a transaction is open; SQLite ends it by itself on a full disk and some I/O errors.
  bool InTransaction() const { return sqlite3_get_autocommit(db_) == 0; }
  sqlite3* handle() const { return db_; }

 private:
  void Close();

  sqlite3* db_ = nullptr;
  std::unordered_map<std::string, sqlite3_stmt*> statements_;
};

}  // namespace finetuned
