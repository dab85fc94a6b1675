#include "worker/data/filters.h"

#include "gtest/gtest.h"
#include "tests/worker/data/test_util.h"

namespace finetuned {
namespace {

Conversation Make(std::string user, std::string assistant) {
  Conversation c;
  c.turns = {{"user", std::move(user), ""}, {"assistant", std::move(assistant), ""}};
  return c;
}
std::string Reason(const Conversation& c, const FilterOptions& options = {}) {
  const absl::Status status = CheckFilters(c, options);
  return status.ok() ? "" : ReasonOfBadRecord(status);
}
std::string Times(std::string_view text, int count) {
  std::string out;
  while (count-- > 0) out += text;
  return out;
}

TEST(FiltersTest, Lengths) {
  EXPECT_EQ(Reason(Make("q", "a")), "");
  EXPECT_EQ(Reason(Make(" \n\t", "a")), "empty_instruction");
  EXPECT_EQ(Reason(Make("q", "  ")), "empty_response");
  EXPECT_EQ(Reason(Make("", ""), {.min_instruction_chars = 0, .min_response_chars = 0}), "");
  EXPECT_EQ(Reason(Make("q", "äöü"), {.min_response_chars = 3}), "") << "characters, not bytes";
  EXPECT_EQ(Reason(Make("q", "äöü"), {.min_response_chars = 4}), "short_response");
  EXPECT_EQ(Reason(Make("qq", "a"), {.min_instruction_chars = 3}), "short_instruction");
  EXPECT_EQ(Reason(Make("q", "abc"), {.max_response_chars = 2}), "long_response");
  EXPECT_EQ(Reason(Make("qqq", "a"), {.max_instruction_chars = 2}), "long_instruction");
  Conversation tools = Make("q", "");
  tools.turns[1].extra_json = R"({"tool_calls":[{}]})";
  EXPECT_EQ(Reason(tools), "");
}

TEST(FiltersTest, Quality) {
  Conversation c = Make("q", "a");
  EXPECT_EQ(Reason(c, {.min_quality_score = 0.5}), "") << "no score: kept";
  c.quality_score = 0.4;
  EXPECT_EQ(Reason(c, {.min_quality_score = 0.5}), "low_quality");
  EXPECT_EQ(Reason(c, {.min_quality_score = 0.4}), "");
}

TEST(FiltersTest, EncodingDamage) {
  for (const char* text : {"caf\uFFFD", "Ã©tÃ© Ã  la", "Itâ€™s", "a\x01z"}) {
    EXPECT_TRUE(HasEncodingDamage(text)) << text;
  }
  for (const char* text : {"", "été à la plage", "NÃO É", "Â", "It’s “fine” — 5 €",
                           "日本語のテキスト", "tab\tline\r\n", "Việt Nam ÂN", "😀"}) {
    EXPECT_FALSE(HasEncodingDamage(text)) << text;
  }
  // One place in a long text may be a quotation.
  EXPECT_FALSE(
      HasEncodingDamage("The sequence Ã© shows up when UTF-8 is read as Latin-1, which is " +
                        Times("a frequent accident. ", 5)));
  EXPECT_EQ(Reason(Make("q", "Itâ€™s"), {.encoding_damage = false}), "");
  EXPECT_EQ(Reason(Make("q", "Itâ€™s")), "encoding_damage");
}

TEST(FiltersTest, Spam) {
  EXPECT_EQ(FindSpam(Times("a", 300)), "repetition");
  EXPECT_EQ(FindSpam(Times("I am sorry.\n", 12)), "repetition");
  EXPECT_EQ(FindSpam(Times("the cat sat down ", 30)), "repetition");
  EXPECT_EQ(FindSpam(Times("!?#@$ ", 20)), "symbol_spam");
  const std::string code =
      "for (int i = 0; i < n; ++i) {\n  x[i] += y[i] * 2;\n}\n// "
      "------------------------------------\nreturn x;\n";
  const std::string table = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n";
  const std::string poem =
      "Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, "
      "merrily,\nLife is but a dream.\n";
  for (const std::string& text :
       {code, table, poem, std::string("ha ha ha ha"), std::string("日本語。日本語、とても良い。"),
        std::string("...")}) {
    EXPECT_EQ(FindSpam(text), "") << text;
  }
  EXPECT_EQ(Reason(Make(Times("a", 300), "fine")), "") << "only what is trained";
  EXPECT_EQ(Reason(Make("q", Times("a", 300)), {.repetition = false}), "");
}

TEST(FiltersTest, DuplicatesIgnoreOuterSpaceOnly) {
  EXPECT_EQ(DuplicateKey(Make(" q\n", "a ")), DuplicateKey(Make("q", "a")));
  EXPECT_NE(DuplicateKey(Make("q x", "a")), DuplicateKey(Make("qx", "a")));
  EXPECT_NE(DuplicateKey(Make("qa", "")), DuplicateKey(Make("q", "a")));
  SeenTexts seen;
  EXPECT_TRUE(seen.Add("a"));
  EXPECT_FALSE(seen.Add("a"));
  EXPECT_TRUE(seen.Contains("a"));
  EXPECT_FALSE(seen.Contains("b"));
}

}  // namespace
}  // namespace finetuned
