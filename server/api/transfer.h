// UploadFile and DownloadArtifact: bytes between clients and the artifacts' folder, one chunk at a
// time. A stream holds one chunk; it reads the next message, or the next piece of a file, only when
// the last is done. All file work runs on the work pool.
//
// Threads: gRPC's and the pool's; a stream is used by one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "finetuned/v1/service.pb.h"
#include "grpcpp/support/server_callback.h"
#include "server/api/work_pool.h"

namespace finetuned {

// What the transfers need of the artifacts' folder. Every method blocks on disk.
class FileTransfers {
 public:
  // An upload in progress. Destroying it keeps what was appended, so that it can be resumed.
  class Upload {
   public:
    virtual ~Upload() = default;
    // True when the server has the whole file already: nothing more is read, Finish gives the
    // answer.
    virtual bool complete() const = 0;
    virtual absl::Status Append(std::string_view bytes) = 0;
    // Checks size and SHA-256 and makes the file durable.
    virtual absl::StatusOr<v1::UploadFileResponse> Finish() = 0;
  };
  // An artifact opened for reading.
  class Download {
   public:
    virtual ~Download() = default;
    virtual uint64_t size_bytes() const = 0;
    virtual std::string sha256() const = 0;
    // Up to max_bytes from offset; empty only at the end.
    virtual absl::StatusOr<std::string> Read(uint64_t offset, size_t max_bytes) = 0;
  };

  virtual ~FileTransfers() = default;
  virtual absl::StatusOr<v1::QueryUploadResponse> Query(const std::string& sha256) = 0;
  virtual absl::StatusOr<std::unique_ptr<Upload>> OpenUpload(const v1::UploadHeader& header) = 0;
  virtual absl::StatusOr<std::unique_ptr<Download>> OpenArtifact(const std::string& job_id,
                                                                 const std::string& path) = 0;
};

// The reactors own themselves. `refusal` (if not OK) is answered at once.
grpc::ServerReadReactor<v1::UploadFileRequest>* StartUpload(FileTransfers* files, WorkPool* pool,
                                                            v1::UploadFileResponse* response,
                                                            const absl::Status& refusal);
grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* StartDownload(
    FileTransfers* files, WorkPool* pool, const v1::DownloadArtifactRequest& request,
    const absl::Status& refusal);

}  // namespace finetuned
