// Shared by the tests of dataset preparation.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/base/file_util.h"
#include "worker/data/json_parser.h"
#include "worker/data/prepared_data.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace finetuned {

// A directory that goes with the test.
class TempDir {
 public:
  TempDir() {
    std::string pattern = std::filesystem::temp_directory_path() / "finetuned_data_XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string Write(const std::string& name, std::string_view content) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

 private:
  std::string path_;
};

inline constexpr int kImStart = 256, kImEnd = 257, kBos = 258, kEos = 259, kTestVocabulary = 260;

// Byte-level BPE without merges: one token a byte, plus four special tokens. Built here, so no
// provenance is needed.
inline std::unique_ptr<Tokenizer> ByteTokenizer(bool post_processor_adds_bos = false) {
  nlohmann::json vocabulary;
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    // GPT-2's printable stand-ins for bytes.
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    std::string name;
    if (code < 0x80) {
      name += static_cast<char>(code);
    } else {
      name += static_cast<char>(0xC0 | (code >> 6));
      name += static_cast<char>(0x80 | (code & 0x3F));
    }
    vocabulary[name] = byte;
  }
  nlohmann::json added = nlohmann::json::array();
  int id = 256;
  for (const char* content : {"<|im_start|>", "<|im_end|>", "<s>", "</s>"}) {
    added.push_back({{"id", id++},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  nlohmann::json json = {{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", added},
                         {"normalizer", nullptr},
                         {"pre_tokenizer",
                          {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", true}}},
                         {"post_processor", nullptr},
                         {"decoder",
                          {{"type", "ByteLevel"},
                           {"add_prefix_space", true},
                           {"trim_offsets", true},
                           {"use_regex", true}}},
                         {"model",
                          {{"type", "BPE"},
                           {"dropout", nullptr},
                           {"unk_token", nullptr},
                           {"continuing_subword_prefix", nullptr},
                           {"end_of_word_suffix", nullptr},
                           {"fuse_unk", false},
                           {"byte_fallback", false},
                           {"ignore_merges", false},
                           {"vocab", vocabulary},
                           {"merges", nlohmann::json::array()}}}};
  if (post_processor_adds_bos) {
    json["post_processor"] = {
        {"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"pair",
         {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "B"}, {"type_id", 1}}}}}},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {kBos}}, {"tokens", {"<s>"}}}}}}};
  }
  auto tokenizer = Tokenizer::FromJson(json.dump(), "byte tokenizer");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

inline constexpr char kChatMl[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

inline std::shared_ptr<const ChatTemplate> Template(const std::string& source = kChatMl) {
  auto parsed = ChatTemplate::Parse(source, "chatml");
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  return parsed.ok() ? *std::move(parsed) : nullptr;
}

// The Value of a JSON text; the parser that holds it lives as long as the process.
inline const Value& Json(std::string_view text) {
  static std::vector<std::unique_ptr<JsonParser>> parsers;
  parsers.push_back(std::make_unique<JsonParser>());
  const auto value = parsers.back()->Parse(text);
  EXPECT_TRUE(value.ok()) << value.status() << " in " << text;
  static const Value kNothing;
  return value.ok() ? **value : kNothing;
}

// A request over files of `dir` with the byte tokenizer and ChatML, cache and output below it.
struct TestJob {
  explicit TestJob(const TempDir& dir, std::vector<std::string> paths)
      : tokenizer(ByteTokenizer()), chat_template(Template()) {
    for (const std::string& path : paths) request.spec.mutable_dataset()->add_path(path);
    request.paths = std::move(paths);
    request.tokenizer = tokenizer.get();
    request.chat_template = chat_template.get();
    request.bos_token = "<s>";
    request.eos_token = "</s>";
    request.model_vocab_size = kTestVocabulary;
    request.tokenizer_sha256 = "byte tokenizer";
    request.cache_dir = dir.path() + "/cache";
    request.output_dir = dir.path() + "/out";
    request.log = [this](v1::Level level, std::string text) {
      log.push_back(v1::Level_Name(level) + " " + text);
    };
  }
  TestJob(const TestJob&) = delete;

  absl::StatusOr<PreparedData> Prepare() const { return PrepareData(request); }
  bool Logged(std::string_view part) const {
    for (const std::string& line : log) {
      if (line.find(part) != std::string::npos) return true;
    }
    return false;
  }

  std::unique_ptr<Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;
  PrepareRequest request;
  std::vector<std::string> log;
};

// The text of the trained (or of all) tokens of a sample, special tokens spelled out.
inline std::string TextOf(const Tokenizer& tokenizer, const SampleView& sample, bool trained_only) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < sample.input_ids.size(); ++i) {
    if (!trained_only || sample.trained[i]) ids.push_back(sample.input_ids[i]);
  }
  return tokenizer.Decode(ids, /*skip_special_tokens=*/false);
}

// A seed that changes from run to run and is printed, or FINETUNED_TEST_SEED.
inline uint64_t TestSeed() {
  const char* fixed = std::getenv("FINETUNED_TEST_SEED");
  const uint64_t seed =
      fixed != nullptr ? std::strtoull(fixed, nullptr, 10) : std::random_device{}();
  std::printf("seed %llu (repeat with FINETUNED_TEST_SEED)\n",
              static_cast<unsigned long long>(seed));
  return seed;
}

}  // namespace finetuned
