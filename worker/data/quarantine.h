// The file of lost records, one JSON object a line: {"reason", "detail", "file", "line", "record"}.
// Repaired records can be cut out of it and submitted again.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace finetuned {

class QuarantineWriter {
 public:
  // Writes to `path`; nothing is created before the first record.
  explicit QuarantineWriter(std::string path) : path_(std::move(path)) {}
  ~QuarantineWriter();

  // `record_json` is put in as JSON; `raw` (any bytes) as a string when there is no JSON.
  absl::Status Add(std::string_view reason, std::string_view detail, std::string_view file,
                   int64_t line, std::string_view record_json, std::string_view raw);
  // Flushes and syncs. RESOURCE_EXHAUSTED for a full disk, as Add.
  absl::Status Finish();

  int64_t count() const { return count_; }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
  std::FILE* file_ = nullptr;
  int64_t count_ = 0;
};

}  // namespace finetuned
