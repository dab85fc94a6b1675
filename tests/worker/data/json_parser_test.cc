#include "worker/data/json_parser.h"

#include <random>

#include "gmock/gmock.h"
#include "tests/worker/data/test_util.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

TEST(JsonParserTest, TakesWhatPythonWrites) {
  JsonParser parser;
  const auto value = parser.Parse(
      R"({"a": NaN, "b": -Infinity, "c": 123456789012345678901234567890, "d": "\ud800x", "e": 3.0})");
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ((*value)->FindPresent("a"), nullptr);
  EXPECT_EQ((*value)->FindPresent("b"), nullptr);
  EXPECT_EQ(ToText(*(*value)->Find("c")), "123456789012345678901234567890");
  EXPECT_EQ((*value)->Find("d")->text, "\uFFFDx");
  EXPECT_EQ(ToText(*(*value)->Find("e")), "3.0");
}

TEST(JsonParserTest, NonStringsBecomeText) {
  EXPECT_EQ(ToText(Json("42")), "42");
  EXPECT_EQ(ToText(Json("18446744073709551615")), "18446744073709551615");
  EXPECT_EQ(ToText(Json("0.1")), "0.1");
  EXPECT_EQ(ToText(Json("true")), "true");
  EXPECT_EQ(ToText(Json(R"([1, {"k": "ä\n"}, null])")), "[1,{\"k\":\"ä\\n\"},null]");
}

TEST(JsonParserTest, LastDuplicateKeyWins) {
  const Value& value = Json(R"({"a": 1, "a": 2})");
  EXPECT_EQ(value.Find("a")->integer, 2);
  EXPECT_TRUE(value.HasDuplicateKeys());
}

TEST(JsonParserTest, SaysWhatIsWrongAndWhere) {
  JsonParser parser;
  const auto error = [&](std::string_view text) {
    return std::string(parser.Parse(text).status().message());
  };
  EXPECT_THAT(error(R"({"a": 1,})"),
              HasSubstr("invalid_json: a key in double quotes is missing at column 9"));
  EXPECT_THAT(error(R"({"a": "b)"), HasSubstr("cut off"));
  EXPECT_THAT(error(R"({'a': 1})"), HasSubstr("invalid_json"));
  EXPECT_THAT(error(R"({"a": 1} x)"), HasSubstr("unexpected text"));
  EXPECT_THAT(error(""), HasSubstr("cut off"));
  EXPECT_THAT(error("{\"a\": \"\xFF\"}"), HasSubstr("invalid_utf8: byte 8"));
  EXPECT_THAT(error(std::string_view("{\"a\": \"\0\"}", 10)), HasSubstr("NUL"));
  EXPECT_THAT(error("{\"a\": 01}"), HasSubstr("invalid_json"));
  EXPECT_THAT(error(std::string(100'000, '[')), HasSubstr("too_deep"));
  EXPECT_THAT(error(std::string(100'000, '[') + std::string(100'000, ']')), HasSubstr("too_deep"));
}

bool Same(const Value& a, const Value& b) { return ToJson(a) == ToJson(b); }

// The two parsers agree on every document that the strict one takes, and neither crashes on damaged
// ones.
TEST(JsonParserTest, MutatedDocuments) {
  std::mt19937_64 random(TestSeed());
  const std::string seed_text =
      R"([{"instruction": "Sag \"hallo\" \u00e4\ud83d\ude00", "n": [1, -2.5e3, 0, true, null], "o": {"x": {}, "y": []}}, "ü", 1e-7])";
  JsonParser strict, lenient;
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = seed_text;
    for (int edits = 1 + static_cast<int>(random() % 4); edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, 1 + random() % 5);
          break;
        case 2:
          text.insert(at, 1, "[]{}\",:\\u0 1eN"[random() % 14]);
          break;
        default:
          text.resize(at + 1);
      }
      if (text.empty()) text = " ";
    }
    const auto a = strict.Parse(text);
    const auto b = lenient.ParseLeniently(text);
    if (a.ok()) {
      ASSERT_TRUE(b.ok()) << b.status() << "\n" << text;
      ASSERT_TRUE(Same(**a, **b)) << text;
      ++accepted;
      const auto again = lenient.Parse(ToJson(**a));
      ASSERT_TRUE(again.ok()) << again.status();
    } else {
      ASSERT_FALSE(b.ok()) << text;
    }
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace finetuned
