#include "worker/data/json_scanner.h"

#include <cstring>

#include "proto/base/status_macros.h"

namespace finetuned {

absl::StatusOr<bool> JsonScanner::Fill() {
  if (position_ < size_) return true;
  FT_ASSIGN_OR_RETURN(size_, stream_.Read(buffer_.data(), buffer_.size()));
  position_ = 0;
  return size_ > 0;
}

absl::StatusOr<int> JsonScanner::Peek() {
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool more, Fill());
    if (!more) return -1;
    const char c = buffer_[position_];
    if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return static_cast<unsigned char>(c);
    Advance();
  }
}

absl::StatusOr<JsonScanner::End> JsonScanner::Take(size_t limit, std::string& out,
                                                   bool stop_at_limit) {
  out.clear();
  int64_t depth = 0;
  bool in_string = false, escaped = false, first = true;
  bool too_long = false;
  while (true) {
    FT_ASSIGN_OR_RETURN(const bool more, Fill());
    if (!more) {
      // A bare number or word may end with the file; anything bracketed or quoted may not.
      if (depth == 0 && !in_string && !first) return too_long ? End::kTooLong : End::kComplete;
      return End::kTruncated;
    }
    const size_t begin = position_;
    bool done = false;
    while (position_ < size_ && !done) {
      const char c = buffer_[position_];
      if (in_string) {
        if (escaped) {
          escaped = false;
        } else if (c == '\\') {
          escaped = true;
        } else if (c == '"') {
          in_string = false;
          done = depth == 0;
        }
        if (c == '\n') ++line_;
        ++position_;
        continue;
      }
      if (depth == 0 && !first &&
          (c == ',' || c == ']' || c == '}' || c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
        break;  // a bare word or number ends before this byte
      }
      if (c == '"') {
        in_string = true;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (c == '}' || c == ']') {
        --depth;
        done = depth <= 0;
      } else if (c == '\n') {
        ++line_;
      }
      first = false;
      ++position_;
    }
    const size_t taken = position_ - begin;
    const size_t kept = std::min(taken, limit - out.size());
    out.append(buffer_.data() + begin, kept);
    if (kept < taken) {
      too_long = true;
      if (stop_at_limit && !done) {
        // What did not fit is given back together with the captured part by the caller's PutBack.
        out.append(buffer_.data() + begin + kept, taken - kept);
        return End::kTooLong;
      }
    }
    if (done || position_ < size_) return too_long ? End::kTooLong : End::kComplete;
  }
}

void JsonScanner::PutBack(std::string text, int64_t line) {
  std::vector<char> joined(text.begin(), text.end());
  joined.insert(joined.end(), buffer_.begin() + position_, buffer_.begin() + size_);
  size_ = joined.size();
  position_ = 0;
  if (joined.size() < kJsonScannerBufferBytes) joined.resize(kJsonScannerBufferBytes);
  buffer_ = std::move(joined);
  line_ = line;
}

}  // namespace finetuned
