// ArtifactReader: reads a file below a directory, and nothing else, whatever the path says: every
// component is opened without following links, so neither ".." nor a link made by a worker leads
// out.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace finetuned {

class ArtifactReader {
 public:
  // `path`: relative, "adapter/adapter_model.safetensors". INVALID_ARGUMENT for an absolute path,
  // an empty one, or one with ".", ".." or empty components; PERMISSION_DENIED for a link or a
  // thing that is no regular file; NOT_FOUND.
  static absl::StatusOr<ArtifactReader> Open(const std::string& directory, const std::string& path);

  ~ArtifactReader();
  ArtifactReader(ArtifactReader&& other) noexcept;
  ArtifactReader& operator=(ArtifactReader&&) = delete;

  // As it was when opened.
  uint64_t size_bytes() const { return size_bytes_; }
  // Up to `max_bytes` from `offset`; empty only at the end. Any thread, blocks on disk.
  absl::StatusOr<std::string> Read(uint64_t offset, size_t max_bytes) const;
  // Of the whole file, read again each time.
  absl::StatusOr<std::string> Sha256() const;

 private:
  ArtifactReader(int fd, uint64_t size_bytes, std::string path)
      : fd_(fd), size_bytes_(size_bytes), path_(std::move(path)) {}

  int fd_;
  uint64_t size_bytes_;
  std::string path_;
};

}  // namespace finetuned
