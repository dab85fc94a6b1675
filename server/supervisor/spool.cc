#include "server/supervisor/spool.h"

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace {

// Reads a varint of at most five bytes (lengths are below 2^32); false when the bytes end or it is
// longer.
bool ReadVarint(std::string_view bytes, size_t* offset, uint64_t* value) {
  *value = 0;
  for (int i = 0; i < 5; ++i) {
    if (*offset >= bytes.size()) return false;
    const auto byte = static_cast<uint8_t>(bytes[(*offset)++]);
    *value |= uint64_t{byte & 0x7fu} << (7 * i);
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

}  // namespace

SpoolContents ParseSpool(std::string_view bytes) {
  SpoolContents contents;
  size_t offset = 0;
  while (offset < bytes.size()) {
    const size_t start = offset;
    uint64_t length = 0;
    if (!ReadVarint(bytes, &offset, &length) || length > bytes.size() - offset) {
      contents.tail = absl::DataLossError(absl::StrCat("torn record at byte ", start));
      return contents;
    }
    v1::SpoolRecord record;
    if (length > kMaxSpoolRecordBytes ||
        !record.ParseFromArray(bytes.data() + offset, static_cast<int>(length))) {
      contents.tail = absl::DataLossError(absl::StrCat("damaged record at byte ", start));
      return contents;
    }
    const int64_t expected = static_cast<int64_t>(contents.records.size()) + 1;
    if (record.spool_seq() != expected) {
      contents.tail =
          absl::DataLossError(absl::StrCat("record at byte ", start, " has spool_seq ",
                                           record.spool_seq(), " instead of ", expected));
      return contents;
    }
    offset += length;
    contents.records.push_back(std::move(record));
  }
  return contents;
}

absl::StatusOr<SpoolContents> ReadSpool(const std::string& path) {
  FT_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  return ParseSpool(bytes);
}

void AppendSpoolRecord(const v1::SpoolRecord& record, std::string* out) {
  const std::string body = record.SerializeAsString();
  uint64_t length = body.size();
  while (length >= 0x80) {
    out->push_back(static_cast<char>(length | 0x80));
    length >>= 7;
  }
  out->push_back(static_cast<char>(length));
  out->append(body);
}

}  // namespace finetuned
