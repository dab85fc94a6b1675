// SentencePiece models, tiktoken rank files and tekken.json; exactness at large is the business of
// tests/reference/vocabulary_parity.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "worker/text/sentencepiece.h"
#include "worker/text/tokenizer.h"

namespace finetuned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Proto = SentencePieceProto;

// Protobuf's wire format, written by hand.
std::string Varint(size_t value) {
  std::string out;
  for (; value >= 128; value >>= 7) out.push_back(static_cast<char>(value % 128 + 128));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string Bytes(size_t field, std::string_view bytes) {
  return Varint(field * 8 + 2) + Varint(bytes.size()) + std::string(bytes);
}
std::string Number(size_t field, size_t value) { return Varint(field * 8) + Varint(value); }
std::string Piece(std::string_view text, float score, int type = Proto::kNormal) {
  std::string real = Varint(2 * 8 + 5);
  real.append(reinterpret_cast<const char*>(&score), sizeof score);
  return Bytes(1, Bytes(1, text) + real + Number(3, static_cast<size_t>(type)));
}

std::string Model(int model_type, bool remove_extra) {
  std::string out = Piece("<unk>", 0, Proto::kUnknown) + Piece("<s>", 0, Proto::kControl);
  float score = 0;
  for (const char* text : {"▁a", "ab", "▁", "a", "b", "c", "▁ab"}) out += Piece(text, score -= 1);
  out += Piece("[x]", 0, Proto::kUserDefined);
  out += Bytes(2, Number(3, static_cast<size_t>(model_type)));
  return out + Bytes(3, Number(4, remove_extra));
}

std::unique_ptr<Tokenizer> Make(std::string_view bytes) {
  auto tokenizer = Tokenizer::FromBytes(bytes, "test.model");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

std::string Refusal(std::string_view bytes) {
  const auto tokenizer = Tokenizer::FromBytes(bytes, "test.model");
  EXPECT_FALSE(tokenizer.ok());
  return std::string(tokenizer.status().message());
}

TEST(SentencePieceTest, BpeMergesTheHighestScore) {
  const auto tokenizer = Make(Model(Proto::kBpe, false));
  // ▁ a b: "▁a" comes before "ab"; nothing joins "▁a" and "b" but "▁ab".
  EXPECT_THAT(tokenizer->Encode("ab", false), ElementsAre(8));
  EXPECT_THAT(tokenizer->Encode("ab  abc", false), ElementsAre(8, 4, 8, 7));
  EXPECT_THAT(tokenizer->Encode("xyzb", false), ElementsAre(4, 0, 6));
  EXPECT_THAT(tokenizer->Encode("a[x]b", false), ElementsAre(2, 9, 6));
  EXPECT_THAT(tokenizer->Encode("<s>a", false), ElementsAre(1, 2));
  EXPECT_THAT(tokenizer->Encode("", false), IsEmpty());
  EXPECT_THAT(tokenizer->EncodeWithOffsets("a  xyb", false).offsets,
              ElementsAre(testing::Pair(0, 1), testing::Pair(1, 2), testing::Pair(2, 3),
                          testing::Pair(3, 5), testing::Pair(5, 6)));
  EXPECT_EQ(tokenizer->Decode({1, 8, 4, 2, 0, 9}, false), "ab  a \u2047 [x]");
  EXPECT_TRUE(tokenizer->IsSpecial(1));
}

// "e" is part of a piece but none itself; unknown beside unknown is one token also across a cut.
TEST(SentencePieceTest, UnknownPartsSideBySideAreOne) {
  const auto tokenizer = Make(Model(Proto::kBpe, false) + Piece("▁eb", -9));
  for (const char* text : {"xe", "ex", "xex", "exxe", "e[x]e"}) {
    const auto with_offsets = tokenizer->EncodeWithOffsets(text, false);
    EXPECT_EQ(with_offsets.ids, tokenizer->Encode(text, false)) << text;
    EXPECT_EQ(with_offsets.ids.size(), std::string_view(text) == "e[x]e" ? 4u : 2u) << text;
  }
}

TEST(SentencePieceTest, UnigramTakesTheBestSum) {
  const auto tokenizer = Make(Model(Proto::kUnigram, true));
  // ▁+ab = −5 is better than ▁a+b = −6 and ▁ab = −7.
  EXPECT_THAT(tokenizer->Encode("ab", false), ElementsAre(4, 3));
  EXPECT_THAT(tokenizer->Encode("  a   xx ", false), ElementsAre(2, 4, 0));
  EXPECT_EQ(tokenizer->Decode({4, 3, 2}, false), "ab a");
}

TEST(SentencePieceTest, RefusesDamagedFiles) {
  const std::string trainer = Bytes(2, Number(3, Proto::kBpe));
  EXPECT_THAT(Refusal("\x01\x02nothing of the kind"), HasSubstr("is no tokenizer file"));
  EXPECT_THAT(Refusal("  "), HasSubstr("is empty"));
  EXPECT_THAT(Refusal(Piece("a", 0) + trainer), HasSubstr("has 0 unknown pieces"));
  EXPECT_THAT(Refusal(Piece("a", 0) + Piece("a", 0) + trainer),
              HasSubstr("piece 1 ('a') is there twice"));
  EXPECT_THAT(Refusal(Piece("", 0)), HasSubstr("piece 0 is empty"));
  EXPECT_THAT(Refusal(Piece("a", std::nanf("")) + trainer),
              HasSubstr("piece 0 has no finite score"));
  EXPECT_THAT(Refusal(Piece("a", 0) + Bytes(2, Number(3, 4))), HasSubstr("type 4"));
  EXPECT_THAT(Refusal(Piece("u", 0, Proto::kUnknown) + Bytes(2, Number(35, 1))),
              HasSubstr("lacks the piece <0x00>"));
  EXPECT_THAT(Refusal(Piece("u", 0, Proto::kUnknown) + Bytes(3, Bytes(2, "abc"))),
              HasSubstr("precompiled_charsmap"));
}

std::string RankFile() {
  std::string out;
  for (int byte = 0; byte < 256; ++byte)
    out +=
        absl::StrCat(absl::Base64Escape(std::string(1, static_cast<char>(byte))), " ", byte, "\n");
  int rank = 256;
  for (const char* token : {"bc", "ab", "abc", " abc", "xyz"})
    out += absl::StrCat(absl::Base64Escape(token), " ", rank++, "\n");
  return out;
}

TEST(TiktokenTest, MergesTheTokenOfTheLeastRank) {
  const auto tokenizer = Make(RankFile());
  EXPECT_THAT(tokenizer->Encode("abc abcabc", false), ElementsAre(258, 259, 258));
  EXPECT_THAT(tokenizer->Encode("abx", false), ElementsAre(257, 'x'));
  EXPECT_THAT(tokenizer->Encode("xyz", false),
              ElementsAre(260));  // a whole word that nothing makes
  EXPECT_THAT(tokenizer->Encode("axyz", false), ElementsAre('a', 'x', 'y', 'z'));
  EXPECT_EQ(tokenizer->Decode({258, 0xC3, 0xA9}, false), "abcé");
  EXPECT_EQ(tokenizer->vocab_size(), 261);
}

TEST(TiktokenTest, RefusesDamagedFiles) {
  EXPECT_THAT(Refusal(RankFile() + "YWI= 3\n"), HasSubstr("gives id 3 to two tokens"));
  EXPECT_THAT(Refusal(RankFile() + "YWI= 300\n"), HasSubstr("holds a token twice"));
  EXPECT_THAT(Refusal(RankFile() + "YWI=\n"), HasSubstr("line 262 is no base64 token and rank"));
  EXPECT_THAT(Refusal(RankFile() + "YWI= 4000000000\n"), HasSubstr("line 262"));
  EXPECT_THAT(Refusal(RankFile().substr(7)), HasSubstr("lacks a token for one of the 256 bytes"));
}

TEST(TekkenTest, SpecialTokensComeFirst) {
  std::string vocab;
  for (int byte = 0; byte < 257; ++byte) {
    absl::StrAppend(&vocab, byte == 0 ? "" : ",", "{\"rank\": ", byte, ", \"token_bytes\": \"",
                    absl::Base64Escape(byte < 256 ? std::string(1, static_cast<char>(byte)) : "ab"),
                    "\"}");
  }
  const auto file = [&](int size, std::string_view more) {
    return absl::StrCat(
        "{\"config\": {\"pattern\": \"\\\\w+|\\\\W+\", \"default_num_special_tokens\": 4, "
        "\"default_vocab_size\": ",
        size, "}, \"vocab\": [", vocab, "]", std::string(more), "}");
  };
  const auto tokenizer =
      Make(file(261, ", \"special_tokens\": [{\"rank\": 1, \"token_str\": \"<s>\"}]"));
  EXPECT_THAT(tokenizer->Encode("<s>ab!", false), ElementsAre(1, 260, '!' + 4));
  EXPECT_EQ(tokenizer->IdToToken(3), "<SPECIAL_3>");
  EXPECT_EQ(tokenizer->Decode({1, 260}, true), "ab");
  EXPECT_THAT(Make(file(260, ""))->Encode("ab</s>", false), ElementsAre('a' + 4, 'b' + 4, 2));
  EXPECT_THAT(Refusal(file(300, "")), HasSubstr("default_vocab_size"));
  EXPECT_THAT(Refusal(file(261, ", \"special_tokens\": [{\"rank\": 4, \"token_str\": \"x\"}]")),
              HasSubstr("special_tokens[0].rank"));
}

TEST(VocabularyFilesTest, DirectoriesAndTheirConfiguration) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) / "vocabulary";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  EXPECT_THAT(std::string(Tokenizer::FromFile(folder).status().message()),
              HasSubstr("tokenizer.json, tokenizer.model"));
  std::ofstream(folder / "tokenizer.model", std::ios::binary) << RankFile();
  std::ofstream(folder / "tokenizer_config.json")
      << R"({"added_tokens_decoder": {"261": {"content": "<|end|>", "special": true, "normalized": false}, "7": {"content": "no"}}})";
  const auto tokenizer = Tokenizer::FromFile(folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->Encode("abc<|end|>", false), ElementsAre(258, 261));
  EXPECT_TRUE((*tokenizer)->IsSpecial(261));
}

// Damaged at random places, files are refused or give tokenizers that work.
TEST(VocabularyFilesTest, SurvivesRandomMutations) {
  const unsigned seed = std::random_device()();
  std::printf("seed %u\n", seed);
  std::mt19937 rng(seed);
  for (const std::string& original :
       {Model(Proto::kBpe, true), Model(Proto::kUnigram, false), RankFile()}) {
    for (int round = 0; round < 3000; ++round) {
      std::string bytes = original;
      for (unsigned n = 1 + rng() % 4; n > 0; --n) {
        const size_t at = rng() % bytes.size();
        if (rng() % 4 == 0) {
          bytes.resize(at + 1);
        } else {
          bytes[at] = static_cast<char>(rng());
        }
      }
      const auto tokenizer = Tokenizer::FromBytes(bytes, "mutated");
      if (!tokenizer.ok()) continue;
      const auto ids = (*tokenizer)->Encode("ab [x] é\n abc", true);
      (*tokenizer)->Decode(ids, false);
    }
  }
}

}  // namespace
}  // namespace finetuned
