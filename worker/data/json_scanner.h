// Cuts a JSON stream into values without parsing them: balanced brackets outside strings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/byte_stream.h"

namespace finetuned {

inline constexpr size_t kJsonScannerBufferBytes = 256 << 10;

class JsonScanner {
 public:
  explicit JsonScanner(ByteStream& stream) : stream_(stream), buffer_(kJsonScannerBufferBytes) {}

  // Next byte that is no white space, not consumed; -1 at the end.
  absl::StatusOr<int> Peek();
  void Skip() { Advance(); }  // consumes the byte that Peek gave

  enum class End : uint8_t { kComplete, kTooLong, kTruncated };
  // Consumes one value that starts at the next byte: an object or list to its matching bracket, a
  // string to its quote, anything else up to white space or ",]}". `out` gets its text, at most
  // `limit` bytes. kTooLong: consumed whole, `out` cut; with `stop_at_limit` the rest is not
  // consumed.
  absl::StatusOr<End> Take(size_t limit, std::string& out, bool stop_at_limit = false);

  // Puts text in front of what is still to be read; the next byte is then on `line`.
  void PutBack(std::string text, int64_t line);

  int64_t line() const { return line_; }  // of the next byte, from 1

 private:
  absl::StatusOr<bool> Fill();  // false at the end
  void Advance() {
    if (buffer_[position_++] == '\n') ++line_;
  }

  ByteStream& stream_;
  std::vector<char> buffer_;
  size_t position_ = 0, size_ = 0;
  int64_t line_ = 1;
};

}  // namespace finetuned
