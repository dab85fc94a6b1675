#include "worker/export/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <random>

#include "tests/fakes/temp_dir.h"
#include "nlohmann/json.hpp"
#include "worker/export/gguf_vocabulary.h"
#include "worker/text/byte_level.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

json Added(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

// The 256 bytes in order, then "he", "hel", "lo", then <bos> 259, <eos> 260 and an added word 261.
json ByteLevelFile() {
  json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    std::string text;
    unicode::AppendUtf8(byte_level::CharacterOf(static_cast<unsigned char>(byte)), text);
    vocab[text] = byte;
  }
  vocab["he"] = 256;
  vocab["hel"] = 257;
  vocab["lo"] = 258;
  return {
      {"version", "1.0"},
      {"added_tokens",
       {Added(259, "<bos>", true), Added(260, "<eos>", true), Added(261, "wow", false)}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "he l", "l o"}}}}};
}

// <unk> 0, <s> 1, </s> 2, the byte tokens 3 … 258, "ab", "abc", "bc", then single characters.
json SentencePieceFile() {
  json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    snprintf(text, sizeof(text), "<0x%02X>", byte);
    vocab[text] = 3 + byte;
  }
  int id = 259;
  for (const char* token : {"ab", "abc", "bc", "a", "b", "c", "▁"}) vocab[token] = id++;
  return {
      {"version", "1.0"},
      {"added_tokens", {Added(0, "<unk>", true), Added(1, "<s>", true), Added(2, "</s>", true)}},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers",
         {{{"type", "Prepend"}, {"prepend", "▁"}},
          {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}}},
      {"pre_tokenizer", nullptr},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"pair", json::array()},
        {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
      {"decoder", nullptr},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"fuse_unk", true},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges", {"a b", "a bc", "ab c", "b c"}}}}};
}

class GgufTokenizerTest : public testing::Test {
 protected:
  void Put(const std::string& name, const std::string& text) { std::ofstream(dir_ / name) << text; }
  absl::StatusOr<GgufTokenizer> Read(const json& file, int64_t rows = 300) {
    Put("tokenizer.json", file.dump());
    return ReadGgufTokenizer(dir_, rows);
  }
  std::string ErrorOf(const json& file, int64_t rows = 300) {
    const auto read = Read(file, rows);
    return read.ok() ? "no error" : read.status().ToString();
  }
  template <typename T>
  static T Get(const GgufTokenizer& tokenizer, const std::string& name) {
    for (const auto& [key, value] : tokenizer.keys) {
      if (key == name) return std::get<T>(value);
    }
    ADD_FAILURE() << "no key " << name;
    return {};
  }
  template <typename T>
  static std::vector<T> List(const GgufTokenizer& tokenizer, const std::string& name) {
    return std::get<std::vector<T>>(Get<GgufArray>(tokenizer, name));
  }
  static bool Has(const GgufTokenizer& tokenizer, const std::string& name) {
    return std::any_of(tokenizer.keys.begin(), tokenizer.keys.end(),
                       [&](const auto& entry) { return entry.first == name; });
  }

  const TempDir temp_;
  const fs::path dir_ = temp_.path();
};

TEST_F(GgufTokenizerTest, ByteLevel) {
  const auto read = Read(ByteLevelFile());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(Get<std::string>(*read, "tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(Get<std::string>(*read, "tokenizer.ggml.pre"), "gpt-2");
  const auto tokens = List<std::string>(*read, "tokenizer.ggml.tokens");
  const auto types = List<int32_t>(*read, "tokenizer.ggml.token_type");
  ASSERT_EQ(tokens.size(), 300u);
  ASSERT_EQ(types.size(), 300u);
  EXPECT_EQ(tokens[32], "Ġ");
  EXPECT_EQ(tokens[257], "hel");
  EXPECT_EQ(tokens[261], "wow");
  EXPECT_EQ(tokens[262], "[PAD262]");
  EXPECT_EQ(tokens[299], "[PAD299]");
  EXPECT_EQ(types[257], kNormal);
  EXPECT_EQ(types[259], kControl);
  EXPECT_EQ(types[261], kUserDefined);
  EXPECT_EQ(types[262], kUnused);
  EXPECT_THAT(List<std::string>(*read, "tokenizer.ggml.merges"), ElementsAre("h e", "he l", "l o"));
  EXPECT_FALSE(Has(*read, "tokenizer.ggml.scores"));
  EXPECT_FALSE(Get<bool>(*read, "tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(Get<bool>(*read, "tokenizer.ggml.add_eos_token"));
  EXPECT_FALSE(Has(*read, "tokenizer.ggml.bos_token_id"));
  EXPECT_TRUE(read->notes.empty());
}

TEST_F(GgufTokenizerTest, PreTokenizerFollowsFromItsComponents) {
  const auto split = [](const std::string& pattern) {
    return json{{"type", "Sequence"},
                {"pretokenizers",
                 {{{"type", "Split"},
                   {"pattern", {{"Regex", pattern}}},
                   {"behavior", "Isolated"},
                   {"invert", false}},
                  {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  };
  const std::string llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string qwen2 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  json file = ByteLevelFile();
  const auto pre = [&] {
    const auto read = Read(file);
    return read.ok() ? Get<std::string>(*read, "tokenizer.ggml.pre") : read.status().ToString();
  };
  file["pre_tokenizer"] = split(llama3);
  EXPECT_EQ(pre(), "smaug-bpe");
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(pre(), "llama-bpe");
  file["pre_tokenizer"] = split(qwen2);
  EXPECT_THAT(pre(), HasSubstr("ignore_merges with the pre-tokenizer qwen2"));
  file["model"]["ignore_merges"] = false;
  EXPECT_EQ(pre(), "qwen2");
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Digits"}, {"individual_digits", true}},
                             {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}};
  EXPECT_EQ(pre(), "smollm");
  file["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = false;
  EXPECT_THAT(pre(), HasSubstr("(Digits + ByteLevel); can be exported: byte-level BPE"));
  file["pre_tokenizer"] = split(R"(\w+|\W)");
  EXPECT_THAT(pre(), HasSubstr("(Split + ByteLevel)"));
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  EXPECT_THAT(pre(), HasSubstr("add_prefix_space"));
  file["pre_tokenizer"] = nullptr;
  EXPECT_THAT(pre(), HasSubstr("(none)"));
}

TEST_F(GgufTokenizerTest, NormalizersAndOptionsThatLlamaCppLacks) {
  json file = ByteLevelFile();
  file["normalizer"] = {{"type", "NFC"}};
  const auto read = Read(file);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(read->notes, ElementsAre(HasSubstr("NFC")));
  file["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", {{{"type", "NFC"}}, {{"type", "Lowercase"}}}}};
  EXPECT_THAT(ErrorOf(file), HasSubstr("normalizer Lowercase"));
  file = ByteLevelFile();
  file["added_tokens"][2]["lstrip"] = true;
  EXPECT_THAT(Read(file)->notes, ElementsAre(HasSubstr("lstrip")));
}

TEST_F(GgufTokenizerTest, SpecialTokensByTextThenByNumber) {
  json file = ByteLevelFile();
  Put("config.json", R"({"bos_token_id": 261, "eos_token_id": 261})");
  auto read = Read(file);
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.bos_token_id"), 261u);
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.eos_token_id"), 261u);
  Put("special_tokens_map.json", R"({"eos_token": {"content": "<eos>"}, "pad_token": "<eos>"})");
  Put("tokenizer_config.json",
      R"({"bos_token": "<bos>", "eos_token": null, "unk_token": "no such token"})");
  read = Read(file);
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.bos_token_id"), 259u);
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.eos_token_id"), 260u);
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.padding_token_id"), 260u);
  EXPECT_FALSE(Has(*read, "tokenizer.ggml.unknown_token_id"));
  // config.json names another end: llama.cpp gets it as end of turn.
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.eot_token_id"), 261u);
  Put("generation_config.json", R"({"eos_token_id": [260, 257, 258, 999999, -1, "x"]})");
  read = Read(file);
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.eot_token_id"), 257u);
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.eom_token_id"), 258u);
  EXPECT_THAT(read->notes, ElementsAre(HasSubstr("'wow'")));
  Put("config.json", "[1]");
  EXPECT_THAT(ErrorOf(file), HasSubstr("config.json is not a JSON object"));
}

TEST_F(GgufTokenizerTest, BosAndEosByThePostProcessor) {
  json file = ByteLevelFile();
  const auto piece = [](const char* token) {
    return json{{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
  };
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  file["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", {piece("<bos>"), text, piece("<eos>")}},
      {"pair", json::array()},
      {"special_tokens",
       {{"<bos>", {{"id", "<bos>"}, {"ids", {259}}, {"tokens", {"<bos>"}}}},
        {"<eos>", {{"id", "<eos>"}, {"ids", {260}}, {"tokens", {"<eos>"}}}}}}};
  auto read = Read(file);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(Get<bool>(*read, "tokenizer.ggml.add_bos_token"));
  EXPECT_TRUE(Get<bool>(*read, "tokenizer.ggml.add_eos_token"));
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.bos_token_id"), 259u);
  EXPECT_EQ(Get<uint32_t>(*read, "tokenizer.ggml.eos_token_id"), 260u);
  Put("tokenizer_config.json", R"({"bos_token": "wow"})");
  EXPECT_THAT(ErrorOf(file),
              HasSubstr("'<bos>', where llama.cpp can put BOS alone, which is 'wow'"));
  Put("tokenizer_config.json", "{}");
  file["post_processor"]["single"] = {piece("<bos>"), piece("<bos>"), text};
  EXPECT_THAT(ErrorOf(file), HasSubstr("puts 2 tokens"));
}

TEST_F(GgufTokenizerTest, ChatTemplates) {
  const json file = ByteLevelFile();
  EXPECT_FALSE(Has(*Read(file), "tokenizer.chat_template"));
  Put("tokenizer_config.json", R"({"chat_template": "one"})");
  EXPECT_EQ(Get<std::string>(*Read(file), "tokenizer.chat_template"), "one");
  Put("tokenizer_config.json",
      R"({"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]})");
  const auto read = Read(file);
  EXPECT_EQ(Get<std::string>(*read, "tokenizer.chat_template"), "d");
  EXPECT_EQ(Get<std::string>(*read, "tokenizer.chat_template.tool_use"), "t");
  EXPECT_THAT(List<std::string>(*read, "tokenizer.chat_templates"), ElementsAre("tool_use"));
  Put("chat_template.jinja", "from a file");
  EXPECT_EQ(Get<std::string>(*Read(file), "tokenizer.chat_template"), "from a file");
  fs::remove(dir_ / "chat_template.jinja");
  Put("tokenizer_config.json", R"({"chat_template": 3})");
  EXPECT_THAT(ErrorOf(file), HasSubstr("chat_template must be"));
}

TEST_F(GgufTokenizerTest, SentencePiece) {
  const auto read = Read(SentencePieceFile(), 266);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(Get<std::string>(*read, "tokenizer.ggml.model"), "llama");
  EXPECT_EQ(Get<std::string>(*read, "tokenizer.ggml.pre"), "default");
  EXPECT_TRUE(Get<bool>(*read, "tokenizer.ggml.add_space_prefix"));
  EXPECT_TRUE(Get<bool>(*read, "tokenizer.ggml.add_bos_token"));
  EXPECT_FALSE(Get<bool>(*read, "tokenizer.ggml.add_eos_token"));
  const auto types = List<int32_t>(*read, "tokenizer.ggml.token_type");
  EXPECT_EQ(types[0], kUnknown);
  EXPECT_EQ(types[1], kControl);
  EXPECT_EQ(types[13], kByte);
  EXPECT_EQ(types[259], kNormal);
  const auto scores = List<float>(*read, "tokenizer.ggml.scores");
  EXPECT_GT(scores[259], scores[260]);  // ab before abc before bc before what no merge makes
  EXPECT_GT(scores[260], scores[261]);
  EXPECT_GT(scores[261], scores[262]);
  EXPECT_FALSE(Has(*read, "tokenizer.ggml.merges"));
}

TEST_F(GgufTokenizerTest, SentencePieceWhoseMergesNoScoreCanSay) {
  json file = SentencePieceFile();
  file["model"]["merges"] = {"a b", "ab c", "b c"};  // a + bc is left out
  EXPECT_THAT(
      ErrorOf(file),
      HasSubstr("'abc' can be joined from two tokens in 2 ways of which the merges list 1"));
  file["model"]["merges"] = {"a b", "ab c", "b c", "a bc"};  // abc's merges apart
  EXPECT_THAT(ErrorOf(file), HasSubstr("do not stand together"));
  file = SentencePieceFile();
  file["model"]["vocab"].erase("<0x41>");
  EXPECT_THAT(ErrorOf(file), HasSubstr("no token for byte 65"));
  file = SentencePieceFile();
  file["normalizer"]["normalizers"][0]["prepend"] = "x";
  EXPECT_THAT(ErrorOf(file), HasSubstr("normalizer Prepend as it stands here"));
  file = SentencePieceFile();
  file["normalizer"] = nullptr;
  EXPECT_THAT(ErrorOf(file),
              HasSubstr("no counterpart of normalizer none with pre-tokenizer none"));
  file["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", false}};
  const auto read = Read(file);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(Get<bool>(*read, "tokenizer.ggml.add_space_prefix"));
  EXPECT_THAT(read->notes, ElementsAre(HasSubstr("behind special tokens")));
  file["pre_tokenizer"]["prepend_scheme"] = "never";
  EXPECT_FALSE(Get<bool>(*Read(file), "tokenizer.ggml.add_space_prefix"));
  file["pre_tokenizer"]["split"] = true;
  EXPECT_THAT(ErrorOf(file), HasSubstr("Metaspace"));
}

TEST_F(GgufTokenizerTest, VocabularyAndEmbeddingMustFit) {
  json file = ByteLevelFile();
  EXPECT_THAT(ErrorOf(file, 261),
              HasSubstr("token ids go up to 261 but the model's embedding has 261 rows"));
  EXPECT_TRUE(Read(file, 262).ok());
  file["added_tokens"][2]["content"] = "[PAD270]";
  EXPECT_THAT(ErrorOf(file, 300), HasSubstr("ids 261 and 270 are both '[PAD270]'"));
  EXPECT_TRUE(absl::IsNotFound(ReadGgufTokenizer(dir_ / "no", 3).status()));
}

TEST_F(GgufTokenizerTest, RandomMutationsNeverCrash) {
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const std::vector<json> values = {
      nullptr,          true, -1,      1e300, "", "x", json::array(), json::object(),
      json::array({1}), "▁",  99999999};
  int exported = 0;
  for (int i = 0; i < 300; ++i) {
    json file = i % 2 ? SentencePieceFile() : ByteLevelFile();
    json flat = file.flatten();
    for (int changes = 1 + static_cast<int>(random() % 2); changes > 0; --changes) {
      // Most of the entries are the vocabulary; every other change is outside of it.
      auto entry = flat.begin();
      do {
        entry = flat.begin();
        std::advance(entry, random() % flat.size());
      } while (random() % 16 != 0 && entry.key().find("/vocab/") != std::string::npos);
      json::json_pointer at(entry.key());
      if (random() % 3 == 0 && !at.parent_pointer().empty()) at = at.parent_pointer();
      if (file.contains(at)) file[at] = values[random() % values.size()];
    }
    exported += Read(file).ok();
  }
  EXPECT_GT(exported, 10);
}

}  // namespace
}  // namespace finetuned
