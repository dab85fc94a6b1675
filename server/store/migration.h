// Schema versions. migrations/NNNN_name.sql are compiled in, in the order of their numbers; the
// database's `user_version` is the number of the last one applied.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/store/sqlite.h"

namespace finetuned {

struct Migration {
  int version;       // from 1, without gaps
  const char* name;  // "0001_initial"
  const char* sql;
};

// The migrations of this build.
const std::vector<Migration>& Migrations();

// Marks a file as ours (SQLite's application_id): "ftd1".
inline constexpr int kApplicationId = 0x66746431;

// Brings `database` (opened from `path`) to the newest version, each migration in its own
// transaction. An existing database is first copied to "<path>.v<version>.backup".
// FAILED_PRECONDITION, with nothing changed, when the database is newer than `migrations` or
// belongs to another program.
absl::Status Migrate(Database& database, const std::string& path,
                     const std::vector<Migration>& migrations);

// Copies the database, as of one moment, to `destination` (replaced when it exists), durably.
absl::Status BackupDatabase(Database& database, const std::string& destination);

// Reads every page and compares tables with indexes. DATA_LOSS names the first damage and the cure.
absl::Status CheckIntegrity(Database& database, const std::string& path);

}  // namespace finetuned
