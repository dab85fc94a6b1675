// JSON: a list of records; one object that is itself a record; an object whose only list of objects
// holds the records; or several such values after each other.
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/base/status_macros.h"
#include "worker/data/format.h"
#include "worker/data/json_parser.h"
#include "worker/data/json_scanner.h"
#include "worker/data/shapes.h"

namespace finetuned {

extern const Format kJson;

namespace {

using End = JsonScanner::End;

Sniff SniffJson(std::string_view head, bool whole) {
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || (head[first] != '{' && head[first] != '['))
    return Sniff::kNo;
  const LineCount lines = CountJsonLines(head, whole);
  // Several lines that are values of their own are JSON Lines, whatever the name says.
  const bool is_lines = head[first] == '[' ? lines.first_parsed : lines.parsed > 0;
  if (is_lines && lines.looked_at > 1) return Sniff::kMaybe;
  if (head[first] == '[' || lines.parsed > 0) return Sniff::kYes;
  const size_t line_end = head.find('\n', first);
  if (line_end == std::string_view::npos) return Sniff::kMaybe;
  // A first line that only opens an object ("{" or "{ "key":") begins a value over several lines.
  const size_t last = head.find_last_not_of(" \t\r", line_end - 1);
  return head[last] == '{' || head[last] == ',' || head[last] == '[' ? Sniff::kYes : Sniff::kMaybe;
}

bool IsListOfObjects(const Value& value) {
  return value.is_array() && !value.items.empty() && value.items.front().is_object();
}

class JsonReader {
 public:
  JsonReader(ByteStream& stream, RecordHandler& handler) : scanner_(stream), handler_(handler) {}

  absl::Status ReadAll() {
    while (true) {
      FT_ASSIGN_OR_RETURN(const int next, scanner_.Peek());
      if (next < 0) return absl::OkStatus();
      if (next == ',') {
        scanner_.Skip();
      } else if (next == '[') {
        scanner_.Skip();
        FT_RETURN_IF_ERROR(ReadList());
      } else if (next == '{') {
        FT_RETURN_IF_ERROR(ReadTopObject());
      } else {
        FT_RETURN_IF_ERROR(ReadValue());
      }
    }
  }

 private:
  // The values of a list whose "[" is consumed, to its "]" or the end of the file.
  absl::Status ReadList() {
    while (true) {
      FT_ASSIGN_OR_RETURN(const int next, scanner_.Peek());
      if (next < 0) {
        return handler_.OnBadRecord("truncated_file", "the list of records has no closing ']'",
                                    scanner_.line(), "");
      }
      if (next == ']' || next == ',') {
        scanner_.Skip();
        if (next == ']') return absl::OkStatus();
      } else if (next == '}') {
        scanner_.Skip();
        FT_RETURN_IF_ERROR(
            handler_.OnBadRecord("invalid_json", "'}' without '{'", scanner_.line(), "}"));
      } else {
        FT_RETURN_IF_ERROR(ReadValue());
      }
    }
  }

  // One value that is a record or nothing.
  absl::Status ReadValue() {
    const int64_t line = scanner_.line();
    FT_ASSIGN_OR_RETURN(const End end, scanner_.Take(kMaxRecordBytes, text_));
    if (end == End::kTooLong) {
      return handler_.OnBadRecord(
          "record_too_long", absl::StrCat("a record of more than ", kMaxRecordBytes >> 20, " MiB"),
          line, std::string_view(text_).substr(0, 4096));
    }
    if (end == End::kTruncated) {
      return handler_.OnBadRecord("truncated_record", "the file ends inside this record", line,
                                  text_);
    }
    return Emit(line);
  }

  absl::Status Emit(int64_t line) {
    absl::StatusOr<const Value*> value = parser_.Parse(text_);
    if (value.ok()) return handler_.OnRecord(**value, line);
    return Bad(value.status(), line);
  }

  absl::Status Bad(const absl::Status& status, int64_t line) {
    if (!absl::IsInvalidArgument(status)) return status;
    const std::string message(status.message());
    const size_t colon = message.find(": ");
    return handler_.OnBadRecord(message.substr(0, colon), message.substr(colon + 2), line, text_);
  }

  // An object at the top: a record, or a wrapper around the records.
  absl::Status ReadTopObject() {
    const int64_t line = scanner_.line();
    FT_ASSIGN_OR_RETURN(const End end,
                        scanner_.Take(kMaxRecordBytes, text_, /*stop_at_limit=*/true));
    if (end == End::kTooLong) {  // too long for a record, so it can only be a wrapper
      scanner_.PutBack(std::move(text_), line);
      return ReadWrapper();
    }
    if (end == End::kTruncated) {
      // The records before the cut are still good when this is a wrapper.
      if (text_.find('[') != std::string::npos) {
        scanner_.PutBack(std::move(text_), line);
        return ReadWrapper();
      }
      return handler_.OnBadRecord("truncated_record", "the file ends inside this record", line,
                                  text_);
    }
    absl::StatusOr<const Value*> parsed = parser_.Parse(text_);
    if (!parsed.ok()) return Bad(parsed.status(), line);
    const Value& value = **parsed;
    std::vector<std::string> lists;
    for (size_t i = 0; i < value.items.size(); ++i) {
      if (IsListOfObjects(value.items[i])) lists.emplace_back(value.keys[i]);
    }
    if (lists.empty() || DetectShape(value) != Shape::kUnknown)
      return handler_.OnRecord(value, line);
    if (lists.size() > 1) return TwoLists(lists);
    scanner_.PutBack(std::move(text_), line);
    return ReadWrapper();
  }

  absl::Status TwoLists(const std::vector<std::string>& lists) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dataset.path: the object at line ", scanner_.line(), " holds several lists of objects (",
        absl::StrJoin(lists, ", "),
        "), and which one holds the records is not clear; write the one you mean to a file "
        "of its own, for example: jq -c '.",
        lists.front(), "[]' FILE > FILE.jsonl"));
  }

  // Streams the records of the only list of objects at depth 1.
  absl::Status ReadWrapper() {
    std::vector<std::string> lists;
    scanner_.Skip();  // "{"
    while (true) {
      FT_ASSIGN_OR_RETURN(int next, scanner_.Peek());
      if (next < 0) {
        return handler_.OnBadRecord(
            "truncated_file", "the object that holds the records has no end", scanner_.line(), "");
      }
      if (next == ',' || next == '}') {
        scanner_.Skip();
        if (next == '}') return absl::OkStatus();
        continue;
      }
      std::string key;
      FT_RETURN_IF_ERROR(scanner_.Take(4096, key).status());
      FT_ASSIGN_OR_RETURN(next, scanner_.Peek());
      if (next != ':') {
        return handler_.OnBadRecord("invalid_json", "a member of the outer object has no ':'",
                                    scanner_.line(), key);
      }
      scanner_.Skip();
      FT_ASSIGN_OR_RETURN(next, scanner_.Peek());
      if (next == '[') {
        scanner_.Skip();
        FT_ASSIGN_OR_RETURN(const int first, scanner_.Peek());
        if (first == '{') {
          lists.push_back(key.size() >= 2 ? key.substr(1, key.size() - 2) : key);
          if (lists.size() > 1) return TwoLists(lists);
          FT_RETURN_IF_ERROR(ReadList());
        } else {
          FT_RETURN_IF_ERROR(SkipList());
        }
      } else if (next >= 0) {
        FT_RETURN_IF_ERROR(scanner_.Take(0, text_).status());
      }
    }
  }

  // A list of something else, whose "[" is consumed.
  absl::Status SkipList() {
    while (true) {
      FT_ASSIGN_OR_RETURN(const int next, scanner_.Peek());
      if (next < 0) return absl::OkStatus();
      if (next == ']' || next == ',' || next == '}') {
        scanner_.Skip();
        if (next == ']') return absl::OkStatus();
      } else {
        FT_RETURN_IF_ERROR(scanner_.Take(0, text_).status());
      }
    }
  }

  JsonScanner scanner_;
  RecordHandler& handler_;
  JsonParser parser_;
  std::string text_;
};

absl::Status ReadJson(ByteStream& stream, RecordHandler& handler) {
  return JsonReader(stream, handler).ReadAll();
}

constexpr std::string_view kExtensions[] = {".json"};

}  // namespace

const Format kJson{
    .name = "json",
    .description = "JSON: a list of objects, one object, or an object that holds the list",
    .extensions = kExtensions,
    .sniff = SniffJson,
    .read = ReadJson,
    .sample = "[{\"text\": \"one\"},\n {\"text\": \"two\"}]\n"};

}  // namespace finetuned
