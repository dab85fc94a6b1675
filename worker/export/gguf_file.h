// GGUF container, version 3 (ggml-org/ggml, docs/gguf.md), written as a stream and read back
// strictly:
//
//   "GGUF" | u32 version | u64 tensors | u64 keys | keys (name, u32 type, value)
//   | tensor table (name, u32 rank, u64 extents innermost first, u32 type, u64 offset) | padding |
//   tensors, each padded
//
// All numbers little-endian, strings with a u64 length before them; the alignment is 32 bytes, or
// `general.alignment`. Errors: those of ErrnoStatus for the file system (RESOURCE_EXHAUSTED on a
// full disk …), DATA_LOSS for a file that is no sound GGUF: the text says what is wrong where.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/export/gguf_encoding.h"

namespace finetuned {

// The index of an alternative is GGUF's number of the type; lists of lists are not read, as
// llama.cpp does not.
using GgufArray =
    std::variant<std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>,
                 std::vector<int16_t>, std::vector<uint32_t>, std::vector<int32_t>,
                 std::vector<float>, std::vector<bool>, std::vector<std::string>, std::monostate,
                 std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>>;
using GgufValue = std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool,
                               std::string, GgufArray, uint64_t, int64_t, double>;
using GgufKeys = std::vector<std::pair<std::string, GgufValue>>;  // in the order of the file

struct GgufTensorInfo {
  std::string name;  // at most 63 bytes
  GgufType type;
  std::vector<int64_t> shape;  // outermost first, as everywhere else here; 1 to 4 extents, the last
                               // a multiple of the block
  int64_t elements() const;
  int64_t bytes() const { return GgufBytes(type, elements()); }
};

// Writes "<path>.tmp.<pid>" and renames it in Finish; destroyed before that it leaves nothing.
class GgufWriter {
 public:
  // Writes everything before the tensors. INVALID_ARGUMENT: a name twice or too long, a shape the
  // type cannot hold.
  static absl::StatusOr<std::unique_ptr<GgufWriter>> Create(const std::string& path,
                                                            const GgufKeys& keys,
                                                            std::vector<GgufTensorInfo> tensors);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  // The next bytes of the tensors, in the declared order. A call may not reach into the next
  // tensor.
  absl::Status Write(std::string_view encoded);
  // fsync and rename; FAILED_PRECONDITION while a tensor is incomplete.
  absl::Status Finish();
  int64_t bytes_written() const { return bytes_written_; }

 private:
  GgufWriter(std::string path, std::vector<GgufTensorInfo> tensors);
  absl::Status WriteRaw(std::string_view bytes);
  absl::Status Pad();

  const std::string path_, temporary_;
  const std::vector<GgufTensorInfo> tensors_;
  int fd_ = -1;
  size_t current_ = 0;      // index of the tensor being written
  int64_t in_current_ = 0;  // bytes of it written
  int64_t bytes_written_ = 0;
};

// An open file whose header has been read and checked: unique names, offsets that follow each other
// without hole or overlap, a size that is exactly what the table says. Keys take at most 256 MiB.
class GgufFile {
 public:
  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(const std::string& path);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const GgufKeys& keys() const { return keys_; }
  const std::vector<GgufTensorInfo>& tensors() const { return tensors_; }
  // Bytes [begin, begin + size) of the encoded tensor tensors()[index]. REQUIRES: within the
  // tensor.
  absl::Status Read(size_t index, int64_t begin, size_t size, char* out) const;

 private:
  explicit GgufFile(std::string path) : path_(std::move(path)) {}
  absl::Status ReadHeader();

  const std::string path_;
  int fd_ = -1;
  GgufKeys keys_;
  std::vector<GgufTensorInfo> tensors_;
  std::vector<int64_t> positions_;  // of each tensor in the file
};

}  // namespace finetuned
