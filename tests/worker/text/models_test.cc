// Models and components that small hand-made files show; exactness at large is the business of
// tests/reference/tokenizer_parity.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "absl/strings/escaping.h"
#include "tests/worker/text/tokenizer_from_json.h"
#include "worker/text/double_array.h"
#include "worker/text/peer_json.h"
#include "worker/text/tokenizer.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json File(json model) { return {{"model", std::move(model)}}; }

json WordLevel(std::initializer_list<const char*> tokens) {
  json vocab = json::object();
  for (const char* token : tokens) vocab[token] = vocab.size();
  return File({{"type", "WordLevel"}, {"unk_token", "?"}, {"vocab", vocab}});
}

json Scores(std::initializer_list<std::pair<const char*, double>> tokens) {
  json vocab = json::array();
  for (const auto& [token, score] : tokens) vocab.push_back(json::array({token, score}));
  return vocab;
}

// The pieces that a pre-tokenizer or normalizer leaves, as a vocabulary of them tells: their text.
std::vector<std::string> Pieces(const json& normalizer, const json& pre_tokenizer,
                                const std::string& text) {
  // Byte tokens spell every word; lengths of the words come from their offsets.
  json file = File({{"type", "WordLevel"}, {"unk_token", "?"}, {"vocab", {{"?", 0}}}});
  file["normalizer"] = normalizer;
  file["pre_tokenizer"] = pre_tokenizer;
  std::vector<std::string> pieces;
  for (const auto& [begin, end] : Make(file)->EncodeWithOffsets(text, false).offsets)
    pieces.push_back(text.substr(begin, end - begin));
  return pieces;
}

TEST(ModelsTest, UnigramTakesTheBestSumAndFusesTheUnknown) {
  json file = File({{"type", "Unigram"},
                    {"unk_id", 0},
                    {"vocab", Scores({{"<unk>", 0.0},
                                      {"a", -1.0},
                                      {"b", -1.5},
                                      {"ab", -2.4},
                                      {"abc", -9.0},
                                      {"c", -1.0},
                                      {"<0xC3>", -20.0},
                                      {"<0xA9>", -20.0}})}});
  // a+b = −2.5 < ab = −2.4; ab+c = −3.4 > abc.
  EXPECT_THAT(Make(file)->Encode("abc", false), ElementsAre(3, 5));
  EXPECT_THAT(Make(file)->Encode("xya<unk>z", false), ElementsAre(0, 1, 0));
  EXPECT_THAT(Make(file)->Encode("éa", false), ElementsAre(0, 1));
  const auto offsets = Make(file)->EncodeWithOffsets("xéab", false).offsets;
  EXPECT_THAT(offsets, ElementsAre(testing::Pair(0, 3), testing::Pair(3, 5)));
  file["model"]["byte_fallback"] = true;
  EXPECT_THAT(Make(file)->Encode("éa", false), ElementsAre(6, 7, 1));
  EXPECT_THAT(Make(file)->Encode("xéa", false), ElementsAre(0, 1));  // <0x78> is no token
  file["model"].erase("type");
  EXPECT_THAT(Make(file)->Encode("ab", false), ElementsAre(3));
  file["model"]["unk_id"] = 99;
  EXPECT_THAT(Refusal(file), HasSubstr("model.unk_id is 99"));
  file["model"].erase("unk_id");
  EXPECT_THAT(Refusal(file), HasSubstr("model.unk_id is missing"));
  file["model"]["vocab"][1] = json::array({"a"});
  EXPECT_THAT(Refusal(file), HasSubstr("model.vocab[1] must be [token, score]"));
}

TEST(ModelsTest, UnigramIsLinearInTheWord) {
  json vocab = Scores({{"<unk>", 0.0}});
  for (int n = 1; n <= 16; ++n) vocab.push_back(json::array({std::string(n, 'a'), -1.0}));
  const auto tokenizer = Make(File({{"type", "Unigram"}, {"unk_id", 0}, {"vocab", vocab}}));
  EXPECT_EQ(tokenizer->Encode(std::string(4 << 20, 'a'), false).size(), (4 << 20) / 16);
}

TEST(ModelsTest, WordPieceTakesTheLongestOrGivesTheWordUp) {
  json file = File(
      {{"type", "WordPiece"},
       {"unk_token", "[UNK]"},
       {"continuing_subword_prefix", "##"},
       {"max_input_chars_per_word", 6},
       {"vocab",
        {{"[UNK]", 0}, {"un", 1}, {"##aff", 2}, {"##able", 3}, {"##a", 4}, {"é", 5}, {"una", 6}}}});
  file["pre_tokenizer"] = {{"type", "WhitespaceSplit"}};
  const auto tokenizer = Make(file);
  // The longest front of "unable" is "una", and then nothing fits: the word is given up.
  EXPECT_THAT(tokenizer->Encode("unable unaff unaa", false), ElementsAre(0, 0, 6, 4));
  EXPECT_THAT(tokenizer->Encode("éé éa unaaaa unaaaaa", false),
              ElementsAre(0, 5, 4, 6, 4, 4, 4, 0));
  EXPECT_THAT(tokenizer->EncodeWithOffsets("unaa x", false).offsets,
              ElementsAre(testing::Pair(0, 3), testing::Pair(3, 4), testing::Pair(5, 6)));
  file["model"]["unk_token"] = "nothing";
  EXPECT_THAT(Refusal(file), HasSubstr("model.unk_token is 'nothing'"));
}

TEST(ModelsTest, WordLevelLooksWordsUp) {
  json file = WordLevel({"?", "one", "two"});
  file["pre_tokenizer"] = {{"type", "Whitespace"}};
  EXPECT_THAT(Make(file)->Encode("two, one", false), ElementsAre(2, 0, 1));
}

TEST(ModelsTest, BertNormalizer) {
  json file = WordLevel({"?", "a b", "eta", " 水 ", "Éta"});
  file["normalizer"] = {{"type", "BertNormalizer"},
                        {"clean_text", true},
                        {"handle_chinese_chars", true},
                        {"strip_accents", nullptr},
                        {"lowercase", true}};
  const auto lower = Make(file);
  EXPECT_THAT(lower->Encode("A\tB\u200b", false), ElementsAre(1));
  EXPECT_THAT(lower->Encode("Éta", false), ElementsAre(2));
  EXPECT_THAT(lower->Encode("水", false), ElementsAre(3));
  file["normalizer"]["lowercase"] = false;
  EXPECT_THAT(Make(file)->Encode("Éta", false), ElementsAre(4));
}

// "é" → "e", "™" → "TM", "ab" → "x": a trie by hand, one block of 256 units a node.
std::string Charsmap() {
  const std::vector<std::pair<std::string, std::string>> entries = {
      {"é", "e"}, {"™", "TM"}, {"ab", "x"}};
  std::vector<std::map<unsigned char, size_t>> nodes(1);
  std::map<size_t, uint32_t> values;
  std::string replacements;
  for (const auto& [key, value] : entries) {
    size_t node = 0;
    for (const char c : key) {
      const auto [it, added] = nodes[node].try_emplace(static_cast<unsigned char>(c), nodes.size());
      node = it->second;
      if (added) nodes.emplace_back();
    }
    values[node] = static_cast<uint32_t>(replacements.size());
    replacements += value + '\0';
  }
  std::vector<uint32_t> units(256 * (nodes.size() + 1), 1u << 31);
  units[0] = 256u << 10;
  for (size_t node = 0; node < nodes.size(); ++node) {
    const auto block = static_cast<uint32_t>(256 * (node + 1));
    if (values.contains(node)) units[block] = 1u << 31 | values[node];
    for (const auto& [byte, child] : nodes[node]) {
      const uint32_t at = block ^ byte, to = static_cast<uint32_t>(256 * (child + 1));
      units[at] = (at ^ to) << 10 | (values.contains(child) ? 1u << 8 : 0) | byte;
    }
  }
  const auto size = static_cast<uint32_t>(units.size() * 4);
  std::string bytes(reinterpret_cast<const char*>(&size), 4);
  bytes.append(reinterpret_cast<const char*>(units.data()), size);
  return bytes + replacements;
}

TEST(ModelsTest, PrecompiledLooksUpGraphemesThenCharacters) {
  json file = WordLevel({"?", "e", "TM", "ab", "TM\u0301\u0301"});
  file["normalizer"] = {{"type", "Precompiled"},
                        {"precompiled_charsmap", absl::Base64Escape(Charsmap())}};
  const auto tokenizer = Make(file);
  EXPECT_THAT(tokenizer->Encode("é", false), ElementsAre(1));
  EXPECT_THAT(tokenizer->Encode("ab", false), ElementsAre(3));             // two graphemes
  EXPECT_THAT(tokenizer->Encode("™\u0301", false), ElementsAre(2));        // 5 bytes: as a whole
  EXPECT_THAT(tokenizer->Encode("™\u0301\u0301", false), ElementsAre(4));  // 7: each by itself
  for (const size_t length : {0, 3, 4, 100, 1000}) {
    file["normalizer"]["precompiled_charsmap"] = absl::Base64Escape(Charsmap().substr(0, length));
    EXPECT_THAT(Refusal(file), HasSubstr("normalizer.precompiled_charsmap")) << length;
  }
  file["normalizer"]["precompiled_charsmap"] = "?";
  EXPECT_THAT(Refusal(file), HasSubstr("is not base64"));
}

TEST(ModelsTest, CutsOfPreTokenizers) {
  EXPECT_THAT(Pieces(nullptr, {{"type", "UnicodeScripts"}}, " Hello мир 水ひラ!"),
              ElementsAre("Hello ", "мир ", "水ひラ", "!"));
  EXPECT_THAT(Pieces(nullptr, {{"type", "UnicodeScripts"}}, "  "), ElementsAre());
  EXPECT_THAT(Pieces(nullptr, {{"type", "FixedLength"}, {"length", 3}}, "aéb水ca"),
              ElementsAre("aéb", "水ca"));
  EXPECT_THAT(Pieces(nullptr, {{"type", "FixedLength"}}, "abcdefg"), ElementsAre("abcde", "fg"));
  EXPECT_THAT(Pieces({{"type", "Nmt"}}, {{"type", "WhitespaceSplit"}}, "a\u200bb\x01\u2581c"),
              ElementsAre("a", "b", "c"));
  json file = WordLevel({"?"});
  file["pre_tokenizer"] = {{"type", "FixedLength"}, {"length", 0}};
  EXPECT_THAT(Refusal(file), HasSubstr("pre_tokenizer.length is 0"));
}

std::string Decoded(const json& decoder, std::initializer_list<const char*> tokens) {
  json file = WordLevel(tokens);
  file["model"]["unk_token"] = *tokens.begin();
  file["decoder"] = decoder;
  std::vector<int32_t> ids(tokens.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  return Make(file)->Decode(ids, false);
}

TEST(ModelsTest, Decoders) {
  EXPECT_EQ(Decoded({{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}},
                    {"it", "'", "s", "un", "##able", "n't", "."}),
            "it ' s unablen't.");
  EXPECT_EQ(Decoded({{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", false}}, {"a", "."}),
            "a .");
  EXPECT_EQ(Decoded({{"type", "CTC"}, {"pad_token", "<pad>"}, {"word_delimiter_token", "|"}},
                    {"<pad>", "h", "|", "i"}),
            "h i");
  EXPECT_EQ(Decoded({{"type", "BPEDecoder"}, {"suffix", "</w>"}}, {"a</w>", "b", "c</w>"}), "a bc");
  EXPECT_EQ(Decoded({{"type", "BPEDecoder"}, {"suffix", ""}}, {"é1", "b"}), " é 1 b");
}

TEST(ModelsTest, PostProcessorsInSequence) {
  json file = WordLevel({"?", "<s>", "</s>", "a"});
  const json bert = {{"type", "BertProcessing"}, {"cls", {"<s>", 1}}, {"sep", {"</s>", 2}}};
  const json start = {
      {"type", "TemplateProcessing"},
      {"single", {{{"SpecialToken", {{"id", "s"}}}}, {{"Sequence", {{"id", "A"}}}}}},
      {"pair", {{{"Sequence", {{"id", "A"}}}}, {{"Sequence", {{"id", "B"}}}}}},
      {"special_tokens", {{"s", {{"id", "s"}, {"ids", {1, 0}}, {"tokens", {"<s>", "?"}}}}}}};
  const auto encoded = [&file](json steps) {
    file["post_processor"] = {{"type", "Sequence"}, {"processors", std::move(steps)}};
    return Make(file)->Encode("a", true);
  };
  EXPECT_THAT(encoded({bert, bert}), ElementsAre(1, 1, 3, 2, 2));
  EXPECT_THAT(encoded({bert, start}), ElementsAre(1, 0, 1, 3, 2));
  // A template leaves two parts, and BertProcessing ends each.
  EXPECT_THAT(encoded({start, bert}), ElementsAre(1, 1, 0, 2, 3, 2));
  EXPECT_THAT(encoded({start, start}), ElementsAre(1, 0, 3));
  file["post_processor"] = start;
  file["post_processor"]["single"].erase(1);
  EXPECT_THAT(Refusal(file), HasSubstr("puts the text in 0 times"));
}

// Hugging Face's JSON parser rounds twice; these are its results.
TEST(PeerJsonTest, FractionsAreThePeers) {
  const auto number = [](const std::string& text) { return ParsePeerJson(text).get<double>(); };
  EXPECT_EQ(number("0.1"), 0.1);
  EXPECT_EQ(number("-2.5e3"), -2500.0);
  EXPECT_EQ(number("9.466890335083008"), 9466890335083008.0 / 1e15);
  EXPECT_EQ(number("12.34567890123456789012345"), 1234567890123456789.0 / 1e17);
  EXPECT_EQ(number("1e-400"), 0.0);
  EXPECT_EQ(number("5e-324"), 5e-324);
  EXPECT_EQ(ParsePeerJson("[1, 2.5, \"x\"]"), json({1, 2.5, "x"}));
  EXPECT_TRUE(ParsePeerJson("[1, 2.5").is_discarded());
}

TEST(DoubleArrayTest, FindsWhatAMapFinds) {
  const unsigned seed = std::random_device()();
  std::printf("seed %u\n", seed);
  std::mt19937 rng(seed);
  for (int round = 0; round < 40; ++round) {
    std::map<std::string, int32_t> map;
    std::vector<std::string> keys;
    for (int i = 0; i < 300; ++i) {
      std::string key;
      for (unsigned n = rng() % 7; n > 0; --n)
        key.push_back(static_cast<char>(round % 2 ? 'a' + rng() % 3 : rng()));
      keys.push_back(key);
    }
    std::vector<std::pair<std::string_view, int32_t>> entries;
    for (size_t i = 0; i < keys.size(); ++i) {
      entries.emplace_back(keys[i], static_cast<int32_t>(i));
      if (!keys[i].empty()) map[keys[i]] = static_cast<int32_t>(i);
    }
    DoubleArray trie;
    trie.Build(entries);
    for (int i = 0; i < 2000; ++i) {
      std::string probe = keys[rng() % keys.size()];
      if (rng() % 2) probe.push_back(static_cast<char>(round % 2 ? 'a' + rng() % 3 : rng()));
      const uint32_t node = trie.Walk(probe);
      const auto it = map.find(probe);
      EXPECT_EQ(node == DoubleArray::kNone ? -1 : trie.Value(node),
                it == map.end() ? -1 : it->second);
    }
  }
}

TEST(GraphemeTest, Clusters) {
  const auto clusters = [](std::string_view text) {
    std::vector<std::string> out;
    for (size_t i = 0; i < text.size();) {
      const size_t end = unicode::GraphemeEnd(text, i);
      out.emplace_back(text.substr(i, end - i));
      i = end;
    }
    return out;
  };
  EXPECT_THAT(clusters("ae\u0301b"), ElementsAre("a", "e\u0301", "b"));
  EXPECT_THAT(clusters("\r\n\n\u0301"), ElementsAre("\r\n", "\n", "\u0301"));
  EXPECT_THAT(clusters("\u1100\u1161\u11a8\uac00\u1100"),
              ElementsAre("\u1100\u1161\u11a8", "\uac00", "\u1100"));
  EXPECT_THAT(clusters("👩\u200d👦a\u200d👦"), ElementsAre("👩\u200d👦", "a\u200d", "👦"));
  EXPECT_THAT(clusters("\u0600a"), ElementsAre("\u0600a"));
  EXPECT_THAT(clusters("\u0915\u094d\u0937\u093f"), ElementsAre("\u0915\u094d\u0937\u093f"));
}

}  // namespace
}  // namespace finetuned
