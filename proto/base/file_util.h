// Durable file operations. Every writer in the project that must survive a power cut uses these.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace finetuned {

// An errno as a Status whose code a caller can act on: ENOENT → NOT_FOUND, EACCES/EPERM → PERMISSION_DENIED,
// ENOSPC/EDQUOT → RESOURCE_EXHAUSTED, EEXIST → ALREADY_EXISTS, anything else → UNAVAILABLE.
absl::Status ErrnoStatus(int error, std::string_view what);

// True for the status of a full disk (ENOSPC or an exceeded quota) made by ErrnoStatus.
bool IsDiskFull(const absl::Status& status);

absl::StatusOr<std::string> ReadFile(const std::string& path);

// Writes to "<path>.tmp.<pid>", fsyncs, renames over `path`, fsyncs the directory. On any error the temporary file is
// removed and `path` is as it was.
absl::Status WriteFileAtomic(const std::string& path, std::string_view contents);

// fsync of a file or directory by path.
absl::Status SyncPath(const std::string& path);

// Renames a finished temporary file or directory into place and fsyncs the parent directory.
absl::Status RenameDurable(const std::string& from, const std::string& to);

// mkdir -p.
absl::Status MakeDirectories(const std::string& path);

// rm -rf; OK when there is nothing.
absl::Status RemoveAll(const std::string& path);

// Free bytes an unprivileged process may still write on the file system that holds `path`.
absl::StatusOr<uint64_t> FreeDiskBytes(const std::string& path);

// Total size of the regular files below `path`, links not followed.
uint64_t DirectoryBytes(const std::string& path);

}  // namespace finetuned
