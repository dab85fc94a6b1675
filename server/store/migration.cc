#include "server/store/migration.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {

absl::Status BackupDatabase(Database& database, const std::string& destination) {
  const std::string temporary = absl::StrCat(destination, ".tmp");
  FT_RETURN_IF_ERROR(RemoveAll(temporary));
  absl::Status status = database.Prepare("VACUUM INTO ?1").Bind(1, temporary).Run();
  if (status.ok()) status = SyncPath(temporary);
  if (status.ok()) status = RenameDurable(temporary, destination);
  if (!status.ok()) {
    unlink(temporary.c_str());
    return absl::Status(status.code(), absl::StrCat("cannot write the backup ", destination, ": ",
                                                    std::string(status.message())));
  }
  return absl::OkStatus();
}

absl::Status Migrate(Database& database, const std::string& path,
                     const std::vector<Migration>& migrations) {
  FT_ASSIGN_OR_RETURN(const int64_t version, database.QueryInt("PRAGMA user_version"));
  FT_ASSIGN_OR_RETURN(const int64_t application, database.QueryInt("PRAGMA application_id"));
  FT_ASSIGN_OR_RETURN(const int64_t tables,
                      database.QueryInt("SELECT count(*) FROM sqlite_master"));
  const bool fresh = version == 0 && application == 0 && tables == 0;
  if (!fresh && application != kApplicationId) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, " is a SQLite database of another program (application_id ", application,
        ", ours is ", kApplicationId, "); give finetuned a data directory of its own"));
  }
  const int newest = static_cast<int>(migrations.size());
  if (version > newest) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " has schema version ", version, ", this build knows versions up to ",
                     newest, "; start a newer finetuned, or restore the backup ", path, ".v",
                     newest, ".backup that was made before the upgrade"));
  }
  if (!fresh && version < newest) {
    FT_RETURN_IF_ERROR(BackupDatabase(database, absl::StrCat(path, ".v", version, ".backup")));
  }
  for (const Migration& migration : migrations) {
    if (migration.version <= version) continue;
    const std::string sql = absl::StrCat("BEGIN IMMEDIATE;\n", migration.sql,
                                         "\nPRAGMA user_version=", migration.version,
                                         "; PRAGMA application_id=", kApplicationId, "; COMMIT");
    if (absl::Status status = database.Exec(sql); !status.ok()) {
      if (database.InTransaction())
        (void)database.Exec("ROLLBACK");  // the first error is the one to tell
      return absl::Status(status.code(), absl::StrCat(path, ": migration ", migration.name,
                                                      " failed, nothing of it was kept: ",
                                                      std::string(status.message())));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckIntegrity(Database& database, const std::string& path) {
  const auto damaged = [&](const std::string& what) {
    return absl::DataLossError(
        absl::StrCat(path, " is damaged: ", what,
                     ". Stop the server, keep a copy of the file, then restore a backup (", path,
                     ".v*.backup) or salvage it: sqlite3 ", path, " .recover | sqlite3 new.db"));
  };
  Statement check = database.Prepare("PRAGMA quick_check(1)");
  const absl::StatusOr<bool> row = check.Step();
  if (!row.ok()) {
    return absl::IsDataLoss(row.status()) ? damaged(std::string(row.status().message()))
                                          : row.status();
  }
  if (!*row || check.Text(0) != "ok")
    return damaged(*row ? check.Text(0) : "no answer from the integrity check");
  return absl::OkStatus();
}

}  // namespace finetuned
