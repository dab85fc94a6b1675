#include "worker/job/text_modes.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <thread>

namespace finetuned {
namespace {

using testing::HasSubstr;

constexpr char kTokenizer[] =
    R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "é": 3}, "merges": [["a", "b"]]},
  "added_tokens": [{"id": 4, "content": "<s>", "special": true}], "decoder": {"type": "Fuse"},
  "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}}})";

class TextModes : public testing::Test {
 protected:
  std::string File(const std::string& name, const std::string& content) {
    const std::string path = testing::TempDir() + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  // What the mode writes for `input`; `code` is its exit status.
  std::string Run(const std::string& mode, const std::vector<std::string>& arguments,
                  const std::string& input) {
    const std::string in_path = File("in", input), out_path = File("out", "");
    const int in = open(in_path.c_str(), O_RDONLY), out = open(out_path.c_str(), O_WRONLY);
    testing::internal::CaptureStderr();
    code = RunTextMode(mode, arguments, in, out);
    errors = testing::internal::GetCapturedStderr();
    close(in);
    close(out);
    std::ifstream file(out_path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }

  int code = -1;
  std::string errors;
};

TEST_F(TextModes, TokenizeAnswersEachLine) {
  const std::string path = File("tokenizer.json", kTokenizer);
  EXPECT_EQ(Run("tokenize", {"--tokenizer", path}, "\"abé\"\n\"\\u0061b\\u00e9\"\n\"\"\n\"b<s>a\""),
            "{\"ids\": [2, 3]}\n{\"ids\": [2, 3]}\n{\"ids\": []}\n{\"ids\": [1, 4, 0]}\n");
  EXPECT_EQ(code, 0);
  EXPECT_EQ(
      Run("tokenize", {"--tokenizer=" + testing::TempDir(), "--add-special-tokens"}, "\"ab\"\r\n"),
      "{\"ids\": [4, 2]}\n");
}

TEST_F(TextModes, ABadLineDoesNotStopTheNext) {
  const std::string path = File("tokenizer.json", kTokenizer);
  EXPECT_EQ(
      Run("tokenize", {"--tokenizer", path}, "\"a\"\n12\n\n\"\xff\"\n\"a\"b\"\n\"\t\"\n\"b\"\n"),
      "{\"ids\": [0]}\n{\"error\":\"line 2: is no JSON string\"}\n{\"error\":\"line 3: is no JSON "
      "string\"}\n"
      "{\"error\":\"line 4: is no JSON string\"}\n{\"error\":\"line 5: is no JSON string\"}\n"
      "{\"error\":\"line 6: is no JSON string\"}\n{\"ids\": [1]}\n");
  EXPECT_EQ(code, 0);
}

TEST_F(TextModes, Detokenize) {
  const std::string path = File("tokenizer.json", kTokenizer);
  EXPECT_EQ(Run("detokenize", {"--tokenizer", path},
                "[4, 2, 3, 99, 4294967296]\n[]\n[-1]\n[1.5]\n{}\n[0]\n"),
            "{\"text\":\"<s>ab\\u00e9\"}\n{\"text\":\"\"}\n"
            "{\"error\":\"line 3: holds something that is no token id, an integer from 0\"}\n"
            "{\"error\":\"line 4: holds something that is no token id, an integer from 0\"}\n"
            "{\"error\":\"line 5: is no JSON array of token ids\"}\n{\"text\":\"a\"}\n");
  EXPECT_EQ(Run("detokenize", {"--tokenizer", path, "--skip-special-tokens"}, "[4, 2]"),
            "{\"text\":\"ab\"}\n");
}

TEST_F(TextModes, Render) {
  const std::string path = File("t.jinja", "{{ x }}{{ strftime_now('%Y-%m-%d %H:%M') }}{{ y.z }}");
  EXPECT_EQ(Run("render", {"--template", path, "--now", "2025-01-05T09:07:03"},
                "{\"x\": 1, \"y\": {\"z\": \"é\\n\"}}\n{\"x\": 1}\n[]\n"),
            "{\"text\":\"12025-01-05 09:07\\u00e9\\n\"}\n{\"error\":\"line 2: template " + path +
                ":1:48: 'y' is undefined\"}\n{\"error\":\"line 3: each line must be a JSON object "
                "of variables\"}\n");
  EXPECT_EQ(code, 0);
  EXPECT_EQ(Run("render", {"--template", File("x.jinja", "{{ x }}"), "--spans"}, "{\"x\": 1}\n"),
            "{\"text\":\"1\",\"assistant\":[]}\n");
}

TEST_F(TextModes, AWrongFileIsSaidOnStandardError) {
  EXPECT_EQ(Run("tokenize", {"--tokenizer", "/nonexistent"}, "\"a\"\n"), "");
  EXPECT_EQ(code, 2);
  EXPECT_THAT(errors, HasSubstr("/nonexistent"));
  EXPECT_EQ(Run("tokenize", {"--tokenizer", File("bad.json", "{")}, "\"a\"\n"), "");
  EXPECT_EQ(code, 2);
  EXPECT_THAT(errors, HasSubstr("bad.json"));
  EXPECT_THAT(Run("render", {"--template", File("bad.jinja", "{% if %}")}, "{}\n"),
              HasSubstr("{\"error\":\"line 1: template "));
  EXPECT_EQ(code, 2);
  EXPECT_THAT(errors, HasSubstr("bad.jinja:1:"));
}

TEST_F(TextModes, WrongArguments) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{},
                                                    {"--tokenizer"},
                                                    {"--template", "x"},
                                                    {"--skip-special-tokens", "--tokenizer", "x"},
                                                    {"x"}}) {
    EXPECT_EQ(Run("tokenize", arguments, ""), "");
    EXPECT_EQ(code, 2);
    EXPECT_THAT(errors, HasSubstr("--help"));
  }
  Run("render", {"--template", "x", "--now", "noon"}, "");
  EXPECT_THAT(errors, HasSubstr("--now is 'noon'"));
  for (const char* mode : {"tokenize", "detokenize", "render"}) {
    EXPECT_TRUE(IsTextMode(mode));
    EXPECT_THAT(Run(mode, {"--help"}, ""), HasSubstr("example: "));
    EXPECT_EQ(code, 0);
  }
  EXPECT_FALSE(IsTextMode("run"));
}

// A partner that asks, waits for the answer and asks again; then one that closes its end.
TEST_F(TextModes, AnswersBeforeItWaits) {
  signal(SIGPIPE, SIG_IGN);
  const std::string path = File("tokenizer.json", kTokenizer);
  int in[2], out[2];
  ASSERT_EQ(pipe(in), 0);
  ASSERT_EQ(pipe(out), 0);
  int result = -1;
  std::thread mode([&] { result = RunTextMode("tokenize", {"--tokenizer", path}, in[0], out[1]); });
  for (const char* question : {"\"a\"\n", "\"a\"\n\"a", "\"\n"}) {
    ASSERT_EQ(write(in[1], question, strlen(question)), static_cast<ssize_t>(strlen(question)));
    pollfd ready{out[0], POLLIN, 0};
    ASSERT_EQ(poll(&ready, 1, 10000), 1) << question;
    char answer[64] = {};
    EXPECT_EQ(read(out[0], answer, sizeof answer - 1), 13);
    EXPECT_STREQ(answer, "{\"ids\": [0]}\n");
  }
  close(out[0]);
  ASSERT_EQ(write(in[1], "\"a\"\n", 4), 4);
  mode.join();
  EXPECT_EQ(result, 0);
  close(in[0]);
  close(in[1]);
  close(out[1]);
}

}  // namespace
}  // namespace finetuned
