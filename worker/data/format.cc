#include "worker/data/format.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/data/json_parser.h"

namespace finetuned {

#define DATA_FORMAT(name) extern const Format k##name;
#include "worker/data/formats/formats.def"
#undef DATA_FORMAT

namespace {

constexpr const Format* kFormats[] = {
#define DATA_FORMAT(name) &k##name,
#include "worker/data/formats/formats.def"
#undef DATA_FORMAT
};

constexpr size_t kHeadBytes = 256 << 10;
constexpr std::string_view kStopMessage = "enough records";
constexpr std::string_view kUtf8Bom = "\xEF\xBB\xBF";

std::string FormatNames() {
  std::string names;
  for (const Format* format : kFormats)
    absl::StrAppend(&names, names.empty() ? "" : ", ", std::string(format->name));
  return names;
}

// "data.jsonl.gz" → ".jsonl".
std::string Extension(const std::string& path) {
  std::filesystem::path name = std::filesystem::path(path).filename();
  std::string extension = absl::AsciiStrToLower(name.extension().string());
  if (extension == ".gz" || extension == ".zst") {
    extension = absl::AsciiStrToLower(name.stem().extension().string());
  }
  return extension;
}

// Content this build cannot read: what it is, and the cure. Empty when nothing is recognised.
std::string UnreadableContent(std::string_view head, const std::string& extension) {
  const auto starts = [&](std::string_view prefix) {
    return head.substr(0, prefix.size()) == prefix;
  };
  const std::string to_jsonl = "; convert it to JSONL, for example: python3 -c \"import pandas; ";
  if (starts("PAR1")) {
    return absl::StrCat(
        "is Parquet, which is not built yet", to_jsonl,
        "pandas.read_parquet('FILE').to_json('FILE.jsonl', orient='records', lines=True)\"");
  }
  if (starts(std::string_view("\xFF\xFE\0\0", 4)) || starts(std::string_view("\0\0\xFE\xFF", 4))) {
    return "is UTF-32, which is not built yet; convert it: iconv -f UTF-32 -t UTF-8 FILE > "
           "FILE.utf8";
  }
  if (starts("\xFF\xFE") || starts("\xFE\xFF")) {
    return "is UTF-16, which is not built yet; convert it: iconv -f UTF-16 -t UTF-8 FILE > "
           "FILE.utf8";
  }
  // ASCII text in UTF-16 without a BOM has a NUL at every other byte.
  if (head.size() >= 8 && head[0] != head[1] && (head[0] == '\0' || head[1] == '\0')) {
    const size_t zero = head[0] == '\0' ? 0 : 1;
    if (head[zero + 2] == '\0' && head[zero + 4] == '\0' && head[zero + 6] == '\0' &&
        head[3 - zero] != '\0') {
      return absl::StrCat(
          "looks like UTF-16 without a byte order mark, which is not built yet; convert it: iconv "
          "-f UTF-16",
          zero == 0 ? "BE" : "LE", " -t UTF-8 FILE > FILE.utf8");
    }
  }
  if (starts("PK\x03\x04"))
    return "is a zip archive (or a spreadsheet); unpack it and name the data file inside";
  if (starts("BZh") || starts("\xFD"
                              "7zXZ")) {
    return "is compressed with bzip2 or xz; gzip and zstd are read: decompress it first";
  }
  if (starts("ARROW1")) {
    return absl::StrCat(
        "is an Arrow file, which is not built yet", to_jsonl,
        "pandas.read_feather('FILE').to_json('FILE.jsonl', orient='records', lines=True)\"");
  }
  if (starts("version https://git-lfs"))
    return "is a Git LFS pointer, not the data; fetch the file: git lfs pull";
  const std::string lower = absl::AsciiStrToLower(std::string(head.substr(0, 64)));
  if (lower.find("<!doctype html") != std::string::npos ||
      lower.find("<html") != std::string::npos) {
    return "is a web page, perhaps a failed download; download the data file itself";
  }
  if (extension == ".csv" || extension == ".tsv") {
    return absl::StrCat("is ", extension == ".csv" ? "CSV" : "TSV", ", which is not built yet",
                        to_jsonl, "pandas.read_csv('FILE'",
                        extension == ".csv" ? "" : ", sep='\\t'",
                        ").to_json('FILE.jsonl', orient='records', lines=True)\"");
  }
  return "";
}

// A stream without its first bytes when they are a byte order mark.
class SkipBomStream : public ByteStream {
 public:
  explicit SkipBomStream(ByteStream& stream) : stream_(stream) {}
  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    if (!started_) {
      started_ = true;
      char head[3];
      while (held_.size() < sizeof head) {
        FT_ASSIGN_OR_RETURN(const size_t count, stream_.Read(head, sizeof head - held_.size()));
        if (count == 0) break;
        held_.append(head, count);
      }
      if (held_ == kUtf8Bom) held_.clear();
    }
    if (!held_.empty()) {
      const size_t count = std::min(size, held_.size());
      held_.copy(buffer, count);
      held_.erase(0, count);
      return count;
    }
    return stream_.Read(buffer, size);
  }
  int64_t file_position() const override { return stream_.file_position(); }
  int64_t file_size() const override { return stream_.file_size(); }

 private:
  ByteStream& stream_;
  bool started_ = false;
  std::string held_;
};

// Tells where in the file the reader is whenever something is handed on.
class PositionHandler : public RecordHandler {
 public:
  PositionHandler(RecordHandler& handler, const ByteStream& stream, int64_t* position)
      : handler_(handler), stream_(stream), position_(position) {}
  absl::Status OnRecord(const Value& record, int64_t line) override {
    if (position_ != nullptr) *position_ = stream_.file_position();
    return handler_.OnRecord(record, line);
  }
  absl::Status OnBadRecord(std::string_view reason, std::string_view detail, int64_t line,
                           std::string_view raw) override {
    if (position_ != nullptr) *position_ = stream_.file_position();
    return handler_.OnBadRecord(reason, detail, line, raw);
  }

 private:
  RecordHandler& handler_;
  const ByteStream& stream_;
  int64_t* const position_;
};

}  // namespace

absl::Status StopReading() { return absl::OutOfRangeError(std::string(kStopMessage)); }

absl::Span<const Format* const> Formats() { return kFormats; }

absl::StatusOr<const Format*> DetectFormat(const std::string& path, std::string_view requested) {
  FT_ASSIGN_OR_RETURN(std::string content, ReadHead(path, kHeadBytes));
  const bool whole = content.size() < kHeadBytes;
  std::string_view head = content;
  if (head.substr(0, 3) == kUtf8Bom) head.remove_prefix(3);
  if (head.find_first_not_of(" \t\r\n") == std::string_view::npos && whole) {
    return absl::InvalidArgumentError(absl::StrCat("dataset.path: ", path, " is empty (",
                                                   content.size(),
                                                   " bytes, no records); name a file with data"));
  }
  const std::string extension = Extension(path);
  if (std::string unreadable = UnreadableContent(head, requested == "auto" ? extension : "");
      !unreadable.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("dataset.path: ", path, " ", unreadable));
  }
  if (requested != "auto" && !requested.empty()) {
    for (const Format* format : kFormats) {
      if (format->name == requested) return format;
    }
    return absl::InvalidArgumentError(absl::StrCat("dataset.format: ", std::string(requested),
                                                   " is not built yet; built: auto, ",
                                                   FormatNames(), "; convert the file to JSONL"));
  }
  const Format* best = nullptr;
  std::pair<Sniff, bool> best_rank{Sniff::kNo, false};
  for (const Format* format : kFormats) {
    const bool named = std::find(format->extensions.begin(), format->extensions.end(), extension) !=
                       format->extensions.end();
    const std::pair<Sniff, bool> rank{format->sniff(head, whole), named};
    if (rank > best_rank) {
      best_rank = rank;
      best = format;
    }
  }
  if (best != nullptr) return best;
  return absl::InvalidArgumentError(absl::StrCat(
      "dataset.path: ", path, " is in no known format (known: ", FormatNames(),
      "); its first characters are \"", absl::CHexEscape(std::string(head.substr(0, 24))),
      "\". For plain text, write one JSON object a line: {\"text\": \"…\"}"));
}

absl::Status ReadRecords(const std::string& path, const Format& format, RecordHandler& handler,
                         int64_t* file_position) {
  FT_ASSIGN_OR_RETURN(std::unique_ptr<ByteStream> stream, ByteStream::Open(path));
  SkipBomStream without_bom(*stream);
  PositionHandler with_position(handler, *stream, file_position);
  absl::Status status = format.read(without_bom, with_position);
  if (file_position != nullptr) *file_position = stream->file_position();
  if (absl::IsOutOfRange(status) &&
      status.message() == absl::string_view(kStopMessage.data(), kStopMessage.size())) {
    return absl::OkStatus();
  }
  return status;
}

LineCount CountJsonLines(std::string_view head, bool whole) {
  LineCount count;
  JsonParser parser;
  while (!head.empty() && count.looked_at < 5) {
    const size_t end = head.find('\n');
    if (end == std::string_view::npos && !whole) break;
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end == std::string_view::npos ? head.size() : end + 1);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    ++count.looked_at;
    const auto value = parser.Parse(line);
    if (!value.ok() || !((*value)->is_object() || (*value)->is_array())) continue;
    ++count.parsed;
    count.first_parsed |= count.looked_at == 1;
  }
  return count;
}

}  // namespace finetuned
