#include "server/store/sqlite.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {

absl::Status SqliteStatus(sqlite3* db, int code, const std::string& what) {
  const std::string text =
      absl::StrCat(what, ": ", db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code),
                   " (SQLite ", code, ")");
  const int system_error = db != nullptr ? sqlite3_system_errno(db) : 0;
  const std::string full = absl::StrCat(text, "; free space on the disk of the data directory and try again");
  switch (code & 0xff) {
    case SQLITE_FULL:
      return ErrnoStatus(ENOSPC, full);
    case SQLITE_IOERR:
      if (system_error == ENOSPC || system_error == EDQUOT) return ErrnoStatus(system_error, full);
      return absl::UnavailableError(text);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(
          absl::StrCat(text, "; another process holds the database, end it and try again"));
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(text);
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return absl::PermissionDeniedError(text);
    case SQLITE_CANTOPEN:
      return system_error != 0 ? ErrnoStatus(system_error, text) : absl::UnavailableError(text);
    case SQLITE_CONSTRAINT:
      return absl::AlreadyExistsError(text);
    default:
      return absl::InternalError(text);
  }
}

Statement::Statement(sqlite3* db, sqlite3_stmt* stmt, bool owned, absl::Status error)
    : db_(db), stmt_(stmt), owned_(owned), error_(std::move(error)) {}

Statement::Statement(Statement&& other) noexcept
    : db_(other.db_),
      stmt_(std::exchange(other.stmt_, nullptr)),
      owned_(other.owned_),
      error_(std::move(other.error_)) {}

Statement::~Statement() {
  if (stmt_ == nullptr) return;
  if (owned_) {
    sqlite3_finalize(stmt_);
    return;
  }
  sqlite3_reset(stmt_);
  sqlite3_clear_bindings(stmt_);
}

void Statement::Note(int code) {
  if (code != SQLITE_OK && error_.ok()) error_ = SqliteStatus(db_, code, "cannot bind a value");
}

Statement& Statement::Bind(int index, int64_t value) {
  if (stmt_ != nullptr) Note(sqlite3_bind_int64(stmt_, index, value));
  return *this;
}

Statement& Statement::Bind(int index, std::string_view text) {
  if (stmt_ != nullptr) {
    Note(sqlite3_bind_text64(stmt_, index, text.data() != nullptr ? text.data() : "", text.size(),
                             SQLITE_TRANSIENT, SQLITE_UTF8));
  }
  return *this;
}

Statement& Statement::BindBlob(int index, std::string_view bytes) {
  if (stmt_ != nullptr) {
    Note(sqlite3_bind_blob64(stmt_, index, bytes.data() != nullptr ? bytes.data() : "",
                             bytes.size(), SQLITE_TRANSIENT));
  }
  return *this;
}

Statement& Statement::BindNull(int index) {
  if (stmt_ != nullptr) Note(sqlite3_bind_null(stmt_, index));
  return *this;
}

absl::StatusOr<bool> Statement::Step() {
  FT_RETURN_IF_ERROR(error_);
  const int code = sqlite3_step(stmt_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return SqliteStatus(db_, code, "job store");
}

absl::Status Statement::Run() {
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool row, Step());
    if (!row) return absl::OkStatus();
  }
}

std::string_view Statement::Bytes(int column) const {
  const void* data = sqlite3_column_blob(stmt_, column);
  const int size = sqlite3_column_bytes(stmt_, column);
  return data == nullptr ? std::string_view()
                         : std::string_view(static_cast<const char*>(data), size);
}

Database::~Database() { Close(); }

Database::Database(Database&& other) noexcept
    : db_(std::exchange(other.db_, nullptr)), statements_(std::move(other.statements_)) {
  other.statements_.clear();
}

Database& Database::operator=(Database&& other) noexcept {
  if (this != &other) {
    Close();
    db_ = std::exchange(other.db_, nullptr);
    statements_ = std::move(other.statements_);
    other.statements_.clear();
  }
  return *this;
}

void Database::Close() {
  for (auto& [sql, stmt] : statements_) sqlite3_finalize(stmt);
  statements_.clear();
  if (db_ != nullptr) sqlite3_close(db_);
  db_ = nullptr;
}

absl::StatusOr<Database> Database::Open(const std::string& path, bool read_only) {
  Database database;
  const int flags =
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (read_only ? 0 : SQLITE_OPEN_CREATE);
  const int code = sqlite3_open_v2(path.c_str(), &database.db_, flags, nullptr);
  if (code != SQLITE_OK)
    return SqliteStatus(database.db_, code, absl::StrCat("cannot open ", path));
  sqlite3_extended_result_codes(database.db_, 1);
  sqlite3_busy_timeout(database.db_, 10000);
  // The first statement that reads the file is the one that meets a damaged header; its error names
  // the path.
  auto named = [&](absl::Status status) {
    return status.ok() ? status
                       : absl::Status(status.code(),
                                      absl::StrCat(path, ": ", std::string(status.message())));
  };
  FT_RETURN_IF_ERROR(named(
      database.Exec("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON")));
  FT_RETURN_IF_ERROR(
      named(database.Exec("PRAGMA cache_size=-4000; PRAGMA wal_autocheckpoint=4000; PRAGMA "
                          "journal_size_limit=67108864")));
  if (read_only) FT_RETURN_IF_ERROR(database.Exec("PRAGMA query_only=ON"));
  return database;
}

absl::Status Database::Exec(const std::string& sql) {
  if (db_ == nullptr) return absl::UnavailableError("the store is closed");
  const int code = sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : SqliteStatus(db_, code, "job store");
}

Statement Database::Prepare(const std::string& sql) {
  auto it = statements_.find(sql);
  if (it != statements_.end()) return Statement(db_, it->second, /*owned=*/false);
  if (db_ == nullptr) return PrepareOnce(sql);
  sqlite3_stmt* stmt = nullptr;
  const int code = sqlite3_prepare_v3(db_, sql.data(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &stmt, nullptr);
  if (code != SQLITE_OK) {
    return Statement(db_, nullptr, false,
                     SqliteStatus(db_, code, absl::StrCat("cannot prepare ", sql)));
  }
  statements_.emplace(sql, stmt);
  return Statement(db_, stmt, /*owned=*/false);
}

Statement Database::PrepareOnce(const std::string& sql) {
  if (db_ == nullptr)
    return Statement(nullptr, nullptr, false, absl::UnavailableError("the store is closed"));
  sqlite3_stmt* stmt = nullptr;
  const int code =
      sqlite3_prepare_v2(db_, sql.data(), static_cast<int>(sql.size()), &stmt, nullptr);
  if (code != SQLITE_OK) {
    return Statement(db_, nullptr, false,
                     SqliteStatus(db_, code, absl::StrCat("cannot prepare ", sql)));
  }
  return Statement(db_, stmt, /*owned=*/true);
}

absl::StatusOr<int64_t> Database::QueryInt(const std::string& sql) {
  Statement statement = Prepare(sql);
  FT_ASSIGN_OR_RETURN(const bool row, statement.Step());
  return row ? statement.Int(0) : 0;
}

}  // namespace finetuned
