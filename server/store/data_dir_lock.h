// One server per data directory: an exclusive lock on <data_dir>/lock for as long as the object
// lives. The kernel gives it up when the process ends, however it ends; a file left behind is no
// lock.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace finetuned {

class DataDirLock {
 public:
  // FAILED_PRECONDITION names the process that holds the lock and the cure. Other errors as
  // ErrnoStatus, with the path.
  static absl::StatusOr<DataDirLock> Acquire(const std::string& data_dir);

  ~DataDirLock();
  DataDirLock(DataDirLock&& other) noexcept;
  DataDirLock& operator=(DataDirLock&& other) noexcept;

 private:
  explicit DataDirLock(int fd) : fd_(fd) {}

  int fd_;
};

}  // namespace finetuned
