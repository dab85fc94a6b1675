// A data file as a stream of bytes, decompressed on the way.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace finetuned {

class ByteStream {
 public:
  virtual ~ByteStream() = default;

  // Opens `path`. gzip (all members) and zstd (all frames) are recognised by their first bytes,
  // never by the name. NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT when it is a directory or
  // device.
  static absl::StatusOr<std::unique_ptr<ByteStream>> Open(const std::string& path);

  // Up to `size` bytes into `buffer`; 0 at the end. DATA_LOSS for damaged or cut-off compressed
  // data, with the position.
  virtual absl::StatusOr<size_t> Read(char* buffer, size_t size) = 0;

  // Position in and size of the file as it lies on disk, for progress.
  virtual int64_t file_position() const = 0;
  virtual int64_t file_size() const = 0;
};

// The first bytes of the decompressed content, at most `size`. Damage beyond them is not noticed
// here.
absl::StatusOr<std::string> ReadHead(const std::string& path, size_t size);

}  // namespace finetuned
