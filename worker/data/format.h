// Data file formats as plug-ins: formats/NAME.cc defines one descriptor, formats/formats.def names
// it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/data/byte_stream.h"
#include "worker/data/value.h"

namespace finetuned {

// Longest text of one record. simdjson needs about 15 bytes of memory for each byte of it.
inline constexpr size_t kMaxRecordBytes = 16 << 20;

// Receives what a reader finds, in file order. A status that is not OK ends the reading and comes
// back from Read; StopReading() ends it as if the file ended there.
class RecordHandler {
 public:
  virtual ~RecordHandler() = default;
  // `record` and its views are valid during the call. `line` counts from 1 and is where the record
  // begins.
  virtual absl::Status OnRecord(const Value& record, int64_t line) = 0;
  // A stretch of the file that is no record. `reason` is a stable snake_case word, `raw` its first
  // bytes.
  virtual absl::Status OnBadRecord(std::string_view reason, std::string_view detail, int64_t line,
                                   std::string_view raw) = 0;
};
absl::Status StopReading();

// What a format says of the first bytes of a file.
enum class Sniff : uint8_t { kNo, kMaybe, kYes };

struct Format {
  std::string_view name;
  std::string_view description;
  absl::Span<const std::string_view> extensions;  // lower case, with dot, without .gz and .zst
  // `head`: first bytes without BOM; `whole`: true when that is the whole file.
  Sniff (*sniff)(std::string_view head, bool whole);
  // Streams records; memory is bounded by kMaxRecordBytes. `stream` stands behind a BOM if there
  // was one.
  absl::Status (*read)(ByteStream& stream, RecordHandler& handler);
  std::string_view sample;  // a small file with two records of the text shape; tests read it
};

absl::Span<const Format* const> Formats();

// The format of a file: `requested` by name, or by content and then extension when it is "auto".
// INVALID_ARGUMENT for an empty file, UTF-16/32, Parquet, CSV, archives, web pages …: each names
// the cure.
absl::StatusOr<const Format*> DetectFormat(const std::string& path, std::string_view requested);

// Reads all records of a file. `progress` (may be empty) gets the position in the file now and
// then.
absl::Status ReadRecords(const std::string& path, const Format& format, RecordHandler& handler,
                         int64_t* file_position = nullptr);

// Number of non-blank lines in `head` that parse as JSON on their own, and of those looked at (at
// most 5). A last line without its end is looked at only when `whole`.
struct LineCount {
  int parsed = 0, looked_at = 0;
  bool first_parsed = false;
};
LineCount CountJsonLines(std::string_view head, bool whole);

}  // namespace finetuned
