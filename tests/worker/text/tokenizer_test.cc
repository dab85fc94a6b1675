#include "worker/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>

#include "tests/worker/text/tokenizer_from_json.h"
#include "worker/text/byte_level.h"
#include "worker/text/regex.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

// A byte-level BPE with the 256 bytes as ids 0…255 (in byte order), then `merges`, then <|bos|> and
// <|im_end|>.
json ByteLevelFile(const std::vector<std::pair<std::string, std::string>>& merges) {
  json vocab = json::object(), list = json::array();
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    unicode::AppendUtf8(byte_level::CharacterOf(static_cast<unsigned char>(byte)), character);
    vocab[character] = byte;
  }
  for (const auto& [left, right] : merges) {
    vocab[left + right] = vocab.size();
    list.push_back({left, right});
  }
  const int bos = static_cast<int>(vocab.size());
  const auto added = [](int id, const std::string& content) {
    return json{{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  };
  return {
      {"version", "1.0"},
      {"truncation",
       {{"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}, {"direction", "Right"}}},
      {"padding", nullptr},
      {"added_tokens", {added(bos, "<|bos|>"), added(bos + 1, "<|im_end|>")}},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single",
         {{{"SpecialToken", {{"id", "<|bos|>"}, {"type_id", 0}}}},
          {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
        {"special_tokens",
         {{"<|bos|>", {{"id", "<|bos|>"}, {"ids", {bos}}, {"tokens", {"<|bos|>"}}}}}}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"vocab", vocab},
        {"merges", list}}}};
}

TEST(TokenizerTest, MergesByRankAndPutsSpecialTokensAround) {
  const auto tokenizer = Make(ByteLevelFile({{"b", "c"}, {"a", "b"}, {"a", "bc"}, {"Ġ", "abc"}}));
  // "abc": b+c comes first, so a+b never does.
  EXPECT_THAT(tokenizer->Encode("abc abc ab", false), ElementsAre(258, 259, 32, 257));
  EXPECT_THAT(tokenizer->Encode("abc", true), ElementsAre(260, 258));
  EXPECT_THAT(tokenizer->Encode("a<|im_end|>b", false), ElementsAre('a', 261, 'b'));
  EXPECT_THAT(tokenizer->Encode("", false), IsEmpty());
  EXPECT_EQ(tokenizer->vocab_size(), 262);
  EXPECT_EQ(tokenizer->Decode({260, 258, 261}, false), "<|bos|>abc<|im_end|>");
  EXPECT_EQ(tokenizer->Decode({260, 258, 261, 9999, -1}, true), "abc");
  EXPECT_EQ(tokenizer->TokenToId("<|im_end|>"), 261);
  EXPECT_EQ(tokenizer->TokenToId("Ġabc"), 259);
  EXPECT_EQ(tokenizer->TokenToId("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer->IdToToken(259), "Ġabc");
  EXPECT_EQ(tokenizer->IdToToken(262), std::nullopt);
  EXPECT_TRUE(tokenizer->IsSpecial(260));
  EXPECT_FALSE(tokenizer->IsSpecial(259));
  EXPECT_EQ(tokenizer->pre_tokenizer_name(), "gpt-2");
  ASSERT_EQ(tokenizer->merges().size(), 4u);
  EXPECT_THAT(tokenizer->merges()[3], Pair("Ġ", "abc"));
}

TEST(TokenizerTest, OffsetsAreBytesOfTheOriginal) {
  const auto tokenizer = Make(ByteLevelFile({{"b", "c"}}));
  const auto encoding = tokenizer->EncodeWithOffsets("é<|im_end|>bc", true);
  EXPECT_THAT(encoding.ids, ElementsAre(257, 0xC3, 0xA9, 258, 256));
  EXPECT_THAT(encoding.offsets,
              ElementsAre(Pair(0, 0), Pair(0, 1), Pair(1, 2), Pair(2, 12), Pair(12, 14)));
}

TEST(TokenizerTest, OffsetsSurviveNormalizationAndIllFormedText) {
  json file = ByteLevelFile({});
  file["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = Make(file);
  // e + combining acute compose to two bytes, both of which stand for all three original ones.
  const auto composed = tokenizer->EncodeWithOffsets("xe\u0301y", false);
  EXPECT_THAT(composed.ids, ElementsAre('x', 0xC3, 0xA9, 'y'));
  EXPECT_THAT(composed.offsets, ElementsAre(Pair(0, 1), Pair(1, 4), Pair(1, 4), Pair(4, 5)));
  const auto replaced = tokenizer->EncodeWithOffsets(
      "a\xFF"
      "b",
      false);
  EXPECT_THAT(replaced.ids, ElementsAre('a', 0xEF, 0xBF, 0xBD, 'b'));
  EXPECT_THAT(replaced.offsets,
              ElementsAre(Pair(0, 1), Pair(1, 2), Pair(1, 2), Pair(1, 2), Pair(2, 3)));
}

TEST(TokenizerTest, LegacyMergesAreTheSame) {
  json file = ByteLevelFile({{"b", "c"}, {"a", "bc"}});
  const auto pairs = Make(file);
  file["model"]["merges"] = {"#version: 0.2", "b c", "a bc"};
  const auto lines = Make(file);
  EXPECT_EQ(pairs->Encode("abcbc", false), lines->Encode("abcbc", false));
  EXPECT_EQ(std::vector(pairs->merges().begin(), pairs->merges().end()),
            std::vector(lines->merges().begin(), lines->merges().end()));
}

TEST(TokenizerTest, IgnoreMergesTakesWholeWords) {
  json file = ByteLevelFile({{"a", "b"}, {"c", "d"}, {"ab", "cd"}});
  file["model"]["merges"].erase(2);  // "abcd" is a token that no merge reaches
  EXPECT_THAT(Make(file)->Encode("abcd", false), ElementsAre(256, 257));
  file["model"]["ignore_merges"] = true;
  EXPECT_THAT(Make(file)->Encode("abcd", false), ElementsAre(258));
}

TEST(TokenizerTest, NamesTheFamilyForLlamaCpp) {
  json file = ByteLevelFile({});
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
  const auto name = [&file](json steps) {
    file["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
    return Make(file)->pre_tokenizer_name();
  };
  EXPECT_EQ(name({{{"type", "Digits"}, {"individual_digits", true}}, byte_level}), "smollm");
  EXPECT_EQ(name({{{"type", "Digits"}, {"individual_digits", false}}, byte_level}), "");
  EXPECT_EQ(name({{{"type", "Whitespace"}}}), "");
}

TEST(TokenizerTest, RefusesWhatIsNotBuiltByName) {
  json file = ByteLevelFile({});
  file["model"]["type"] = "Trigram";
  EXPECT_THAT(Refusal(file),
              HasSubstr("test.json: model: model type 'Trigram' is not built yet; supported: BPE, "
                        "Unigram, WordPiece, WordLevel"));
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    file = ByteLevelFile({});
    file[key] = {{"type", "Martian"}};
    EXPECT_THAT(Refusal(file), HasSubstr(std::string(key) + ": ")) << key;
    EXPECT_THAT(Refusal(file), HasSubstr("type 'Martian' is not built yet; supported: ")) << key;
    EXPECT_THAT(Refusal(file), HasSubstr("Sequence")) << key;
  }
  file = ByteLevelFile({});
  file["model"]["dropout"] = 0.1;
  EXPECT_THAT(Refusal(file), HasSubstr("model.dropout"));
}

TEST(TokenizerTest, RefusesHostileFiles) {
  EXPECT_THAT(std::string(Tokenizer::FromJson("{", "x").status().message()),
              HasSubstr("x: is not well-formed JSON"));
  EXPECT_THAT(std::string(Tokenizer::FromJson("[]", "x").status().message()),
              HasSubstr("must be an object"));
  const auto with = [](const std::string& pointer, json value) {
    json file = ByteLevelFile({{"a", "b"}});
    file[json::json_pointer(pointer)] = std::move(value);
    return Refusal(file);
  };
  EXPECT_THAT(with("/model", 3), HasSubstr("model"));
  EXPECT_THAT(with("/model/vocab", json::array()), HasSubstr("model.vocab"));
  EXPECT_THAT(with("/model/vocab/zz", 4000000000u), HasSubstr("model.vocab.zz is 4000000000"));
  EXPECT_THAT(with("/model/vocab/zz", -1), HasSubstr("must be an integer from 0"));
  EXPECT_THAT(with("/model/vocab/zz", 18446744073709551615u), HasSubstr("must be an integer"));
  EXPECT_THAT(with("/model/vocab/zz", "1"), HasSubstr("must be an integer"));
  EXPECT_THAT(with("/model/vocab/zz", 97), HasSubstr("gives id 97 to both"));
  EXPECT_THAT(with("/model/merges", json::array({json::array({"a", "z"})})),
              HasSubstr("needs token 'az'"));
  EXPECT_THAT(with("/model/merges", json::array({json::array({"a", "zz"})})),
              HasSubstr("needs token 'zz'"));
  EXPECT_THAT(with("/model/merges", {"a b c"}), HasSubstr("model.merges[0]"));
  EXPECT_THAT(with("/model/merges", {json{1, 2}}), HasSubstr("model.merges[0]"));
  EXPECT_THAT(with("/model/byte_fallback", "yes"), HasSubstr("model.byte_fallback"));
  EXPECT_THAT(with("/added_tokens/0/id", -5), HasSubstr("added_tokens[0].id is -5"));
  EXPECT_THAT(with("/added_tokens", "x"), HasSubstr("added_tokens"));
  EXPECT_THAT(with("/post_processor/special_tokens", json::object()), HasSubstr("<|bos|>"));
  EXPECT_THAT(with("/post_processor/special_tokens/<|bos|>/ids", {99999}), HasSubstr("99999"));
  EXPECT_THAT(
      with("/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", "(("}}}, {"content", ""}}),
      HasSubstr("normalizer.pattern is wrong"));
  // An unknown token that the text could need but the vocabulary lacks.
  json file = ByteLevelFile({});
  file["model"]["vocab"].erase("a");
  file["model"]["unk_token"] = "<unk>";
  EXPECT_THAT(Refusal(file), HasSubstr("model.unk_token is '<unk>'"));
}

TEST(TokenizerTest, AddedTokensGetTheIdsThatHuggingFaceGivesThem) {
  json file = ByteLevelFile({});
  file["added_tokens"][0]["id"] = 9000;                     // 256 follows the vocabulary
  file["added_tokens"].push_back(file["added_tokens"][1]);  // a second time, no longer special
  file["added_tokens"][2]["special"] = false;
  file["added_tokens"].push_back(file["added_tokens"][1]);
  file["added_tokens"][3]["content"] = "a";  // has an id in the vocabulary
  const auto tokenizer = Make(file);
  EXPECT_THAT(tokenizer->Encode("<|bos|>b<|im_end|>a", false), ElementsAre(256, 'b', 257, 'a'));
  EXPECT_EQ(tokenizer->vocab_size(), 258);
  EXPECT_FALSE(tokenizer->IsSpecial(257));
  // What was special once is left out of the text.
  EXPECT_EQ(tokenizer->Decode({256, 'b', 257, 'a'}, true), "b");
}

// Values nested as deeply as a file may be long, where a component and where something else is
// expected.
TEST(TokenizerTest, DeepNestingIsRefused) {
  const std::string good = ByteLevelFile({{"a", "b"}}).dump();
  for (const std::string key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    const std::map<std::string, std::string> lists = {{"normalizer", "normalizers"},
                                                      {"pre_tokenizer", "pretokenizers"},
                                                      {"post_processor", "processors"},
                                                      {"decoder", "decoders"}};
    const std::string open = R"({"type":"Sequence",")" + lists.at(key) + R"(":[)";
    std::string sequences, arrays;
    for (int i = 0; i < 100000; ++i) sequences += open;
    sequences += "[";
    arrays.assign(300000, '[');
    for (const std::string& opening : {sequences, arrays}) {
      std::string closing;
      for (size_t i = opening.size(); i-- > 0;) {
        if (opening[i] == '[') closing += ']';
        if (opening[i] == '{') closing += '}';
      }
      std::string text = good;
      const std::string field = "\"" + key + "\":";
      const json value = json::parse(good)[key];
      const size_t at = text.find(field) + field.size();
      text.replace(at, value.dump().size(), opening + closing);
      const auto tokenizer = Tokenizer::FromJson(text, "deep");
      ASSERT_FALSE(tokenizer.ok());
      EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("deep: " + key));
    }
  }
  std::string text = good;
  const std::string field = "\"merges\":[";
  text.insert(text.find(field) + field.size(),
              std::string(300000, '[') + std::string(300000, ']') + ",");
  EXPECT_THAT(std::string(Tokenizer::FromJson(text, "deep").status().message()),
              HasSubstr("model.merges[0]"));
}

TEST(TokenizerTest, MutatedFilesNeverCrash) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  json file = ByteLevelFile({{"a", "b"}, {"ab", "c"}});
  file["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "NFKC"}},
        {{"type", "Replace"}, {"pattern", {{"Regex", "\\s+"}}}, {"content", " "}}}}};
  file["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", "\\p{L}+|\\d"}}},
         {"behavior", "MergedWithNext"},
         {"invert", false}},
        {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", true}},
        {{"type", "ByteLevel"}}}}};
  const std::string good = file.dump();
  ASSERT_TRUE(Tokenizer::FromJson(good, "good").ok());
  int accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (uint32_t edits = 1 + random() % 4; edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, random() % 20);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), random() % 40));
          break;
        default:
          text.insert(at, std::string("[]{}\"0-9,:nul").substr(random() % 13, 1));
      }
      if (text.empty()) text = "{";
    }
    const auto tokenizer = Tokenizer::FromJson(text, "mutated");
    if (!tokenizer.ok()) continue;
    ++accepted;
    const std::string sample = "abc Hello 123 \xFF\xF0\x9F<|bos|> é漢字\n";
    const auto encoding = (*tokenizer)->EncodeWithOffsets(sample, true);
    ASSERT_EQ(encoding.ids.size(), encoding.offsets.size());
    for (const auto& [begin, end] : encoding.offsets)
      ASSERT_TRUE(begin <= end && end <= sample.size());
    (*tokenizer)->Decode(encoding.ids, true);
  }
  EXPECT_GT(accepted, 0);
}

TEST(TokenizerTest, ByteLevelTextComesBackWhole) {
  const auto tokenizer = Make(ByteLevelFile({{"a", "b"}, {"Ġ", "t"}, {"Ã", "©"}}));
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (uint32_t i = random() % 30; i > 0; --i) {
      char32_t c = random() % 3 == 0 ? random() % 0x10FFFF : random() % 0x180;
      if (c >= 0xD800 && c <= 0xDFFF) c = 'x';
      unicode::AppendUtf8(c, text);
    }
    ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text, false), false), text);
  }
}

// Words above the cut-over to the heap give the ids of the scan. With merges a+a, aa+aa … only the
// lengths decide.
TEST(TokenizerTest, LongWordsAreMergedLikeShortOnes) {
  const auto tokenizer = Make(ByteLevelFile({{"a", "a"}, {"aa", "aa"}, {"b", "a"}}));
  for (int length = 1; length < 200; ++length) {
    std::vector<int32_t> expected(static_cast<size_t>(length / 4), 257);
    if (length % 4 >= 2) expected.push_back(256);
    if (length % 2 == 1) expected.push_back('a');
    EXPECT_EQ(tokenizer->Encode(std::string(static_cast<size_t>(length), 'a'), false), expected)
        << length;
  }
}

TEST(TokenizerTest, TimeGrowsAboutLinearlyWithAPathologicalWord) {
  const auto tokenizer =
      Make(ByteLevelFile({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}, {"b", "a"}}));
  // Quadratic work on two million characters would take hours; no time is asserted but that the
  // test ends.
  const std::string word(2'000'000, 'a');
  EXPECT_EQ(tokenizer->Encode(word, false).size(), word.size() / 8);
}

TEST(TokenizerTest, ThreadsAgree) {
  const auto tokenizer = Make(ByteLevelFile({{"a", "b"}, {"ab", "c"}}));
  const auto other = Make(ByteLevelFile({{"b", "c"}}));
  const std::string text = "abc ab bc abcabc";
  const auto expected = tokenizer->Encode(text, true), expected_other = other->Encode(text, true);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 2000; ++round) {
        EXPECT_EQ(tokenizer->Encode(text, true),
                  expected);  // two models share the thread's word cache
        EXPECT_EQ(other->Encode(text, true), expected_other);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(RegexTest, PropertiesFollowTheReferencesUnicode) {
  // U+1C89 and U+2EBF0 became letters after Unicode 14.
  const auto letters = Regex::Compile(R"(\p{L}+)");
  ASSERT_TRUE(letters.ok()) << letters.status();
  std::vector<Span> matches;
  (*letters)->FindAll("\u1c89\U0002EBF0", matches);
  EXPECT_THAT(matches, ElementsAre(Span{0, 7}));
  EXPECT_FALSE(Regex::Compile("(").ok());
  EXPECT_FALSE(Regex::Compile("\xFF").ok());
}

TEST(RegexTest, EmptyMatches) {
  const auto regex = Regex::Compile("b*");
  ASSERT_TRUE(regex.ok());
  std::vector<Span> matches;
  (*regex)->FindAll("abbé", matches);
  EXPECT_THAT(matches, ElementsAre(Span{0, 0}, Span{1, 3}, Span{5, 5}));
}

}  // namespace
}  // namespace finetuned
