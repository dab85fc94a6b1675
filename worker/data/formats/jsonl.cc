// JSON Lines: one record a line. "\n" and "\r\n" end a line; blank lines are skipped.
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/data/format.h"
#include "worker/data/json_parser.h"

namespace finetuned {

extern const Format kJsonl;

namespace {

constexpr size_t kChunkBytes = 256 << 10;

Sniff SniffJsonl(std::string_view head, bool whole) {
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || (head[first] != '{' && head[first] != '['))
    return Sniff::kNo;
  const LineCount lines = CountJsonLines(head, whole);
  // One list is JSON, also when it ends with a line that is a value of its own.
  if (head[first] == '[')
    return lines.first_parsed && lines.looked_at > 1 ? Sniff::kYes : Sniff::kNo;
  return lines.parsed > 0 ? Sniff::kYes : Sniff::kMaybe;
}

class LineParser {
 public:
  explicit LineParser(RecordHandler& handler) : handler_(handler) {}

  // One line without its "\n". `ended` is false for a last line that has none.
  absl::Status OnLine(std::string_view line, bool ended) {
    ++number_;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) return absl::OkStatus();
    if (line.size() > kMaxRecordBytes) return OnLongLine(line);
    absl::StatusOr<const Value*> value = parser_.Parse(line);
    if (value.ok()) return handler_.OnRecord(**value, number_);
    if (!absl::IsInvalidArgument(value.status())) return value.status();
    const std::string message(value.status().message());
    const size_t colon = message.find(": ");
    std::string reason = message.substr(0, colon);
    if (line.find('\0') != std::string_view::npos) reason = "nul_bytes";
    if (!ended && message.find("cut off") != std::string::npos) reason = "truncated_record";
    return handler_.OnBadRecord(reason, message.substr(colon + 2), number_, line);
  }
  // A line beyond the limit, of which `start` holds the beginning; counts the line when OnLine did
  // not.
  absl::Status OnLongLine(std::string_view start) {
    return handler_.OnBadRecord("record_too_long",
                                absl::StrCat("a line of more than ", kMaxRecordBytes >> 20, " MiB"),
                                number_, start.substr(0, 4096));
  }
  void CountLine() { ++number_; }

 private:
  RecordHandler& handler_;
  JsonParser parser_;
  int64_t number_ = 0;
};

absl::Status ReadJsonl(ByteStream& stream, RecordHandler& handler) {
  LineParser parser(handler);
  std::vector<char> chunk(kChunkBytes);
  std::string carry;      // the beginning of a line that did not end yet
  bool skipping = false;  // inside a line whose beginning was already reported as too long
  while (true) {
    FT_ASSIGN_OR_RETURN(const size_t count, stream.Read(chunk.data(), chunk.size()));
    if (count == 0) break;
    std::string_view rest(chunk.data(), count);
    while (!rest.empty()) {
      const size_t end = rest.find('\n');
      const std::string_view piece = rest.substr(0, end);
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
      const bool ended = end != std::string_view::npos;
      if (skipping) {
        skipping = !ended;
      } else if (ended && carry.empty()) {
        FT_RETURN_IF_ERROR(parser.OnLine(piece, true));
      } else {
        carry.append(piece);
        if (ended) {
          FT_RETURN_IF_ERROR(parser.OnLine(carry, true));
          carry.clear();
        } else if (carry.size() > kMaxRecordBytes) {
          parser.CountLine();
          FT_RETURN_IF_ERROR(parser.OnLongLine(carry));
          carry.clear();
          skipping = true;
        }
      }
    }
  }
  if (!carry.empty()) return parser.OnLine(carry, false);
  return absl::OkStatus();
}

constexpr std::string_view kExtensions[] = {".jsonl", ".ndjson", ".jsonlines"};

}  // namespace

const Format kJsonl{.name = "jsonl",
                    .description = "JSON Lines: one object a line",
                    .extensions = kExtensions,
                    .sniff = SniffJsonl,
                    .read = ReadJsonl,
                    .sample = "{\"text\": \"one\"}\n{\"text\": \"two\"}\n"};

}  // namespace finetuned
