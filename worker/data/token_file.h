// The token file: tokenized samples, appended once and then memory-mapped. Format: CACHE_FORMAT.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/base/sha256.h"
#include "worker/data/token_store.h"

namespace finetuned {

// One entry of the index, as it lies in the file (little-endian).
struct TokenIndexEntry {
  uint64_t offset = 0;  // of input_ids, from the beginning of the file; a multiple of 4
  uint32_t tokens = 0;
  uint32_t trained = 0;   // tokens that are labels
  uint32_t response = 0;  // tokens of assistant content, trained or not
  uint32_t id_bytes = 0;
};
static_assert(sizeof(TokenIndexEntry) == 24);

// Writes a token file front to back. Not thread-safe. An unfinished file has no valid header.
class TokenFileWriter {
 public:
  static absl::StatusOr<std::unique_ptr<TokenFileWriter>> Create(const std::string& path);
  ~TokenFileWriter();

  absl::Status Append(absl::Span<const int32_t> ids, absl::Span<const uint8_t> trained,
                      std::string_view sample_id, uint32_t response_tokens);
  // Index, checksums and header, then fsync. RESOURCE_EXHAUSTED for a full disk, as Append.
  absl::Status Finish();

  const std::vector<TokenIndexEntry>& index() const { return index_; }
  // SHA-256 over all samples; after Finish.
  const std::string& content_sha256() const { return content_sha256_; }

 private:
  TokenFileWriter(int fd, std::string path);
  absl::Status Write(const void* data, size_t size);
  absl::Status Flush();

  const int fd_;
  const std::string path_;
  std::string buffer_;
  uint64_t written_ = 0;  // bytes of the file, buffer included
  uint32_t block_crc_ = 0;
  uint64_t block_filled_ = 0;
  std::vector<uint32_t> block_crcs_;
  std::vector<TokenIndexEntry> index_;
  Sha256 content_;
  std::string content_sha256_;
};

// A token file mapped into memory. Thread-safe.
class TokenFile {
 public:
  // Checks header, every block's checksum and every index entry. DATA_LOSS names what is damaged.
  static absl::StatusOr<std::shared_ptr<const TokenFile>> Open(const std::string& path);
  ~TokenFile();

  absl::Span<const TokenIndexEntry> index() const { return index_; }
  SampleView Sample(size_t index) const;

 private:
  TokenFile(const char* data, size_t size) : data_(data), size_(size) {}
  const char* const data_;
  const size_t size_;
  absl::Span<const TokenIndexEntry> index_;
};

// The samples of `file` that `order` lists.
std::shared_ptr<const TokenStore> MakeTokenStore(std::shared_ptr<const TokenFile> file,
                                                 std::vector<uint32_t> order);

}  // namespace finetuned
