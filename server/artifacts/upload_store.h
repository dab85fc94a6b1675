// UploadStore: files that clients have sent, named by their SHA-256, so that the same bytes are
// stored once.
//
//   <root>/partial/<sha256>          what has been received so far; survives the server and is
//   resumed <root>/<sha256[0:2]>/<sha256>    complete: hash checked, fsynced, renamed here
//
// Every method blocks on disk. Any thread; a Session is used by one thread at a time. The newest
// session of a hash is the only one that may write: an older one (a client that lost its
// connection, or a second client with the same file) gets ABORTED and may resume.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace finetuned {

struct UploadStoreOptions {
  std::string root;                          // <data_dir>/uploads
  uint64_t max_bytes = uint64_t{1} << 40;    // of one file
  uint64_t disk_reserve_bytes = 1ull << 30;  // kept free on the file system
};

class UploadStore {
 public:
  struct Progress {
    uint64_t received_bytes = 0;
    bool complete = false;
  };

  class Session {
   public:
    virtual ~Session() = default;
    // The file was there already when the session began: nothing need be sent, Finish is OK.
    virtual bool complete() const = 0;
    // Bytes received, those of earlier sessions included.
    virtual uint64_t received_bytes() const = 0;
    // OUT_OF_RANGE beyond the announced size, RESOURCE_EXHAUSTED (IsDiskFull) on a full disk,
    // ABORTED when a newer session has taken over. What was appended before stays, for a later
    // session.
    virtual absl::Status Append(std::string_view bytes) = 0;
    // Checks size and hash and makes the file durable under its final name. FAILED_PRECONDITION
    // when bytes are missing (they are kept), INVALID_ARGUMENT when the hash is another (they are
    // dropped).
    virtual absl::Status Finish() = 0;
  };

  // Makes the directories.
  static absl::StatusOr<std::unique_ptr<UploadStore>> Open(UploadStoreOptions options);
  virtual ~UploadStore() = default;

  // INVALID_ARGUMENT for a text that is no hash. An unknown hash has 0 bytes.
  virtual absl::StatusOr<Progress> Query(const std::string& sha256) = 0;
  // Goes on at `offset`, at most what Query answers (else FAILED_PRECONDITION naming it); bytes
  // after it are dropped. INVALID_ARGUMENT for a bad hash or size, RESOURCE_EXHAUSTED when the disk
  // has no room for the rest.
  virtual absl::StatusOr<std::unique_ptr<Session>> Begin(const std::string& sha256,
                                                         uint64_t size_bytes, uint64_t offset) = 0;
  // Absolute path of a complete upload; NOT_FOUND names the hash and the cure.
  virtual absl::StatusOr<std::string> Find(const std::string& sha256) = 0;
  // Removes partial files that nobody has written to for `age`; returns how many.
  virtual absl::StatusOr<int> RemoveStalePartials(absl::Duration age) = 0;
};

// 64 hex digits, lower case.
bool IsSha256(std::string_view text);

}  // namespace finetuned
