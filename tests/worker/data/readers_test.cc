// Formats: detection, streaming readers, hostile files.
#include <zlib.h>
#include <zstd.h>

#include <fstream>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "tests/worker/data/test_util.h"
#include "worker/data/format.h"

namespace finetuned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Collected : RecordHandler {
  absl::Status OnRecord(const Value& record, int64_t line) override {
    records.push_back(ToJson(record));
    lines.push_back(line);
    return limit > 0 && records.size() >= limit ? StopReading() : absl::OkStatus();
  }
  absl::Status OnBadRecord(std::string_view reason, std::string_view detail, int64_t line,
                           std::string_view) override {
    bad.push_back(absl::StrCat(std::string(reason), "@", line));
    return absl::OkStatus();
  }
  size_t limit = 0;
  std::vector<std::string> records, bad;
  std::vector<int64_t> lines;
};

class ReadersTest : public ::testing::Test {
 protected:
  Collected Read(const std::string& name, std::string_view content,
                 std::string_view expected_format, std::string_view requested = "auto") {
    Collected out;
    const std::string path = dir_.Write(name, content);
    const auto format = DetectFormat(path, requested);
    EXPECT_TRUE(format.ok()) << format.status();
    if (!format.ok()) return out;
    EXPECT_EQ((*format)->name, expected_format);
    const absl::Status status = ReadRecords(path, **format, out);
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }
  std::string DetectError(const std::string& name, std::string_view content,
                          std::string_view requested = "auto") {
    return std::string(DetectFormat(dir_.Write(name, content), requested).status().message());
  }
  TempDir dir_;
};

std::string Gzip(std::string_view text) {
  z_stream z{};
  deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&z, text.size()) + 32, '\0');
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}
std::string Zstd(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);  // as the zstd tool does
  out.resize(ZSTD_compress2(context, out.data(), out.size(), text.data(), text.size()));
  ZSTD_freeCCtx(context);
  return out;
}

TEST_F(ReadersTest, RegistryCountsFilesAgainstLines) {
  size_t files = 0;
  for (const auto& item : std::filesystem::directory_iterator(
           std::string(std::getenv("FINETUNED_SOURCE_DIR")) + "/worker/data/formats")) {
    files += item.path().extension() == ".cc";
  }
  EXPECT_EQ(Formats().size(), files);
}

// Each format reads its own sample, plain and compressed, and finds it by content under a
// meaningless name.
TEST_F(ReadersTest, EveryFormatReadsItsSample) {
  for (const Format* format : Formats()) {
    SCOPED_TRACE(format->name);
    EXPECT_FALSE(format->description.empty());
    const std::string sample(format->sample);
    for (const std::string& content :
         {sample, Gzip(sample), Zstd(sample), "\xEF\xBB\xBF" + sample}) {
      const Collected read = Read("data.bin", content, format->name);
      EXPECT_THAT(read.records, ElementsAre(R"({"text":"one"})", R"({"text":"two"})"));
      EXPECT_THAT(read.bad, IsEmpty());
    }
    Collected limited;
    limited.limit = 1;
    ASSERT_TRUE(ReadRecords(dir_.Write("s", sample), *format, limited).ok());
    EXPECT_EQ(limited.records.size(), 1u);
  }
}

TEST_F(ReadersTest, ContentDecidesBeforeExtension) {
  EXPECT_EQ(Read("a.json", "{\"a\":1}\n{\"a\":2}\n", "jsonl").records.size(), 2u);
  EXPECT_EQ(Read("a.jsonl", "[{\"a\":1},\n{\"a\":2}]", "json").records.size(), 2u);
  EXPECT_EQ(Read("a.jsonl", "{\n \"a\": 1\n}\n{\n \"a\": 2\n}\n", "json").records.size(), 2u);
  EXPECT_EQ(Read("a.jsonl", "broken\n{\"a\":1}\n", "jsonl", "jsonl").records.size(), 1u);
  EXPECT_EQ(Read("a.jsonl", "{broken\n{\"a\":1}\n", "jsonl").records.size(), 1u);
  EXPECT_EQ(Read("a.jsonl", "{\"a\":1}", "jsonl").records.size(), 1u);
  EXPECT_EQ(Read("a.json", "{\"a\":1}", "json").records.size(), 1u);
  EXPECT_EQ(Read("a.json", "[{\"r\":1}]\n[{\"r\":2}]\n", "jsonl").records.size(), 2u);
}

TEST_F(ReadersTest, JsonLayouts) {
  EXPECT_THAT(
      Read("a.json",
           R"({"meta": {"n": 2}, "tags": ["x"], "rows": [{"a": 1}, {"a": 2}], "v": "1.0"})", "json")
          .records,
      ElementsAre(R"({"a":1})", R"({"a":2})"));
  // The only list of objects is a conversation: the object is the record.
  EXPECT_EQ(Read("a.json", R"({"messages": [{"role": "user", "content": "x"}], "id": 1})", "json")
                .records.size(),
            1u);
  EXPECT_EQ(Read("a.json", R"({"instruction": "a", "output": "b", "refs": [{"u": 1}]})", "json")
                .records.size(),
            1u);
  EXPECT_THAT(Read("a.json", "[]", "json").records, IsEmpty());
  EXPECT_THAT(Read("a.json", "[{\"a\":1},]", "json").records, ElementsAre(R"({"a":1})"));
  const Collected lines = Read("a.json", "[\n{\"a\":1},\n\n{\"a\":2}\n]", "json");
  EXPECT_THAT(lines.lines, ElementsAre(2, 4));

  const std::string path = dir_.Write("two.json", R"({"train": [{"a": 1}], "test": [{"a": 2}]})");
  Collected out;
  const absl::Status status = ReadRecords(path, **DetectFormat(path, "auto"), out);
  EXPECT_THAT(std::string(status.message()), HasSubstr("several lists of objects (train, test)"));
}

TEST_F(ReadersTest, WrapperLongerThanARecordIsStreamed) {
  std::string big = "{\"version\": 1, \"data\": [";
  const std::string row = absl::StrCat("{\"text\": \"", std::string(1 << 16, 'x'), "\"}");
  int rows = 0;
  while (big.size() <= kMaxRecordBytes + (1 << 20))
    absl::StrAppend(&big, rows++ > 0 ? ",\n" : "", row);
  const Collected read = Read("big.json", big + "], \"end\": true}", "json");
  EXPECT_EQ(read.records.size(), static_cast<size_t>(rows));
  EXPECT_THAT(read.bad, IsEmpty());
  EXPECT_EQ(read.lines.back(), rows);
}

TEST_F(ReadersTest, HostileFiles) {
  const std::string nul("{\"a\":1}\n\0\0\0\n{\"a\":2}\n", 20);
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  struct Case {
    const char* what;
    std::string name, content, format;
    size_t records;
    std::vector<std::string> bad;
  };
  const Case cases[] = {
      {"CRLF", "a.jsonl", "{\"a\":1}\r\n{\"a\":2}\r\n", "jsonl", 2, {}},
      {"BOM and CRLF", "a.jsonl", "\xEF\xBB\xBF{\"a\":1}\r\n\r\n{\"a\":2}", "jsonl", 2, {}},
      {"NUL bytes", "a.jsonl", nul, "jsonl", 2, {"nul_bytes@2"}},
      {"invalid UTF-8",
       "a.jsonl",
       "{\"a\":1}\n{\"a\":\"\xC3\x28\"}\n",
       "jsonl",
       1,
       {"invalid_utf8@2"}},
      {"truncated last line",
       "a.jsonl",
       "{\"a\":1}\n{\"a\":\"xy",
       "jsonl",
       1,
       {"truncated_record@2"}},
      {"complete last line without newline", "a.jsonl", "{\"a\":1}\n{\"a\":2}", "jsonl", 2, {}},
      {"nesting of 100,000 in a line",
       "a.jsonl",
       "{\"a\":1}\n" + deep + "\n{\"a\":2}\n",
       "jsonl",
       2,
       {"too_deep@2"}},
      {"nesting of 100,000 in a list",
       "a.json",
       "[{\"a\":1}," + deep + ",{\"a\":2}]",
       "json",
       2,
       {"too_deep@1"}},
      {"unclosed nesting",
       "a.json",
       "[{\"a\":1}," + std::string(100'000, '['),
       "json",
       1,
       {"truncated_record@1", "truncated_file@1"}},
      {"truncated list",
       "a.json",
       "[{\"a\":1},\n{\"a\":",
       "json",
       1,
       {"truncated_record@2", "truncated_file@2"}},
      {"list without end", "a.json", "[{\"a\":1}\n", "json", 1, {"truncated_file@2"}},
      {"broken element",
       "a.json",
       "[{\"a\":1},\n{\"a\" 1},\n{\"a\":2}]",
       "json",
       2,
       {"invalid_json@2"}},
      {"bare words", "a.json", "[{\"a\":1}, oops, {\"a\":2}]", "json", 2, {"invalid_json@1"}},
      {"missing comma", "a.json", "[{\"a\":1} {\"a\":2}]", "json", 2, {}},
      {"stray brackets", "a.json", "[{\"a\":1}}, {\"a\":2}]", "json", 2, {"invalid_json@1"}},
      {"quotes unbalanced", "a.jsonl", "{\"a\":\"x}\n{\"a\":2}\n", "jsonl", 1, {"invalid_json@1"}},
      {"every line broken",
       "a.jsonl",
       "{oops\n{oops\n",
       "jsonl",
       0,
       {"invalid_json@1", "invalid_json@2"}},
      {"duplicate keys", "a.jsonl", "{\"a\":1,\"a\":2}\n", "jsonl", 1, {}},
      {"truncated wrapper",
       "a.json",
       "{\"rows\": [{\"a\":1}, {\"a\":2}",
       "json",
       2,
       {"truncated_file@1", "truncated_file@1"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const Collected read = Read(c.name, c.content, c.format);
    EXPECT_EQ(read.records.size(), c.records);
    EXPECT_EQ(read.bad, c.bad);
  }
}

TEST_F(ReadersTest, OverlongLineIsSkippedWithoutHoldingIt) {
  const std::string path = dir_.path() + "/long.jsonl";
  {
    std::ofstream file(path, std::ios::binary);
    file << "{\"a\":1}\n{\"a\":\"";
    const std::string chunk(1 << 20, 'x');
    for (size_t written = 0; written <= 2 * kMaxRecordBytes; written += chunk.size()) file << chunk;
    file << "\"}\n{\"a\":2}\n";
  }
  Collected read;
  ASSERT_TRUE(ReadRecords(path, **DetectFormat(path, "auto"), read).ok());
  EXPECT_EQ(read.records.size(), 2u);
  EXPECT_THAT(read.bad, ElementsAre("record_too_long@2"));
  EXPECT_THAT(read.lines, ElementsAre(1, 3));
}

TEST_F(ReadersTest, UnreadableContentNamesTheCure) {
  EXPECT_THAT(DetectError("a.jsonl", ""), HasSubstr("is empty"));
  EXPECT_THAT(DetectError("a.jsonl", " \n\n"), HasSubstr("is empty"));
  EXPECT_THAT(DetectError("a.csv", "a,b\n1,2\n"),
              HasSubstr("CSV, which is not built yet; convert it to JSONL"));
  EXPECT_THAT(DetectError("a.tsv.gz", Gzip("a\tb\n1\t2\n")),
              HasSubstr("TSV, which is not built yet"));
  EXPECT_THAT(DetectError("a.jsonl", "PAR1xxxx"), HasSubstr("Parquet, which is not built yet"));
  EXPECT_THAT(DetectError("a.jsonl", std::string("\xFF\xFE{\0\"\0", 6)),
              HasSubstr("iconv -f UTF-16"));
  EXPECT_THAT(DetectError("a.jsonl", std::string("{\0\"\0a\0\"\0:\0", 10)),
              HasSubstr("iconv -f UTF-16LE"));
  EXPECT_THAT(DetectError("a.jsonl", "PK\x03\x04zzzz"), HasSubstr("zip archive"));
  EXPECT_THAT(DetectError("a.jsonl", "<!DOCTYPE html><html>"), HasSubstr("web page"));
  EXPECT_THAT(DetectError("a.jsonl", "version https://git-lfs.github.com/spec/v1\n"),
              HasSubstr("git lfs pull"));
  EXPECT_THAT(DetectError("a.txt", "Dear all,\n"),
              HasSubstr("in no known format (known: json, jsonl)"));
  EXPECT_THAT(DetectError("a.jsonl", "{}", "parquet"),
              HasSubstr("dataset.format: parquet is not built yet"));
  EXPECT_THAT(std::string(DetectFormat(dir_.path() + "/none.jsonl", "auto").status().message()),
              HasSubstr("none.jsonl"));
  EXPECT_THAT(std::string(DetectFormat(dir_.path(), "auto").status().message()),
              HasSubstr("not a regular file"));
}

TEST_F(ReadersTest, DamagedCompressionIsAnErrorWithPosition) {
  std::string text;
  for (int i = 0; i < 5000; ++i) absl::StrAppend(&text, "{\"text\":\"", i * 7919, "\"}\n");
  for (const std::string& packed : {Gzip(text), Zstd(text)}) {
    std::string damaged = packed;
    for (size_t i = packed.size() / 2; i < packed.size() / 2 + 16; ++i)
      damaged[i] = static_cast<char>(damaged[i] ^ 0x5A);
    for (const std::string& content : {packed.substr(0, packed.size() / 2), damaged}) {
      const std::string path = dir_.Write("x.jsonl.gz", content);
      // What is damaged before the first byte of output is told by detection already.
      const auto format = DetectFormat(path, "jsonl");
      Collected read;
      const absl::Status status = format.ok() ? ReadRecords(path, **format, read) : format.status();
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("near byte"));
    }
  }
  // Two members and padding after them, as `cat a.gz b.gz` and tapes make.
  EXPECT_EQ(
      Read("two.gz", Gzip("{\"a\":1}\n") + Gzip("{\"a\":2}\n") + std::string(512, '\0'), "jsonl")
          .records.size(),
      2u);
  EXPECT_EQ(Read("two.zst", Zstd("{\"a\":1}\n") + Zstd("{\"a\":2}\n"), "jsonl").records.size(), 2u);
}

// Random damage to files of every format: no crash, no hang, and line numbers stay within the file.
TEST_F(ReadersTest, MutatedFiles) {
  std::mt19937_64 random(TestSeed());
  const std::string seeds[] = {
      "{\"instruction\": \"a\", \"output\": \"b\"}\n{\"messages\": [{\"role\": \"user\", "
      "\"content\": \"x\"}]}\r\n\n{\"t\": [1,2,{}]}\n",
      "[{\"a\": 1, \"b\": [1, {\"c\": \"}\\\"\"}]},\n {\"a\": 2},\n {\"a\": \"]\"}]\n",
      "{\"info\": {\"x\": 1}, \"data\": [{\"a\": 1}, {\"a\": \"\\u00e4\"}], \"k\": [\"s\", 2]}\n",
  };
  for (int round = 0; round < 400; ++round) {
    std::string text = seeds[random() % 3];
    for (int edits = 1 + static_cast<int>(random() % 6); edits > 0; --edits) {
      const size_t at = random() % text.size();
      if (random() % 2 == 0) {
        text[at] = "[]{}\",:\\\n\0x\xFF"[random() % 12];
      } else {
        text.erase(at, 1 + random() % 8);
      }
      if (text.empty()) text = " ";
    }
    const std::string path = dir_.Write("mutated", text);
    for (const Format* format : Formats()) {
      Collected read;
      const absl::Status status = ReadRecords(path, *format, read);
      ASSERT_TRUE(status.ok() || absl::IsInvalidArgument(status)) << status;
      const int64_t most = 1 + std::count(text.begin(), text.end(), '\n');
      for (const int64_t line : read.lines)
        ASSERT_TRUE(line >= 1 && line <= most) << line << " of " << most << "\n" << text;
    }
    (void)DetectFormat(path, "auto").status();
  }
}

}  // namespace
}  // namespace finetuned
