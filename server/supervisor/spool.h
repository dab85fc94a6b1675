// The spool file of an attempt: <attempt_dir>/spool.pb. Each record is a varint length and a
// serialized SpoolRecord, nothing else. The worker appends and syncs, then sends; the server reads
// the file only after the worker has ended.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "finetuned/v1/worker.pb.h"

namespace finetuned {

// A record longer than this is damage, not data.
inline constexpr size_t kMaxSpoolRecordBytes = 64 << 20;

struct SpoolContents {
  // Whole records in the order of the file, spool_seq from 1 without gaps.
  std::vector<v1::SpoolRecord> records;
  // OK, or why reading stopped before the end: a torn last record is usual after a kill; anything
  // else is damage. What came before is good either way.
  absl::Status tail;
};

SpoolContents ParseSpool(std::string_view bytes);

// NOT_FOUND when there is no file.
absl::StatusOr<SpoolContents> ReadSpool(const std::string& path);

// Appends one record to `out` in the file's form.
void AppendSpoolRecord(const v1::SpoolRecord& record, std::string* out);

}  // namespace finetuned
