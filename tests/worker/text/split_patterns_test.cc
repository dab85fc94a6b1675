// The hand-written scanners must cut exactly where Oniguruma does.
#include "worker/text/split_patterns.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <random>
#include <string>

#include "worker/text/regex.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

std::vector<Span> ByScanner(SplitPattern pattern, std::string_view text) {
  std::vector<Span> spans;
  SplitByKnownPattern(pattern, text, {0, static_cast<uint32_t>(text.size())}, spans);
  return spans;
}

struct Case {
  std::string_view pattern;
  SplitPattern scanner;
};

class SplitPatternsTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    auto compiled = Regex::Compile(GetParam().pattern);
    ASSERT_TRUE(compiled.ok()) << compiled.status();
    regex_ = *std::move(compiled);
  }
  void ExpectEqual(std::string_view text) {
    std::vector<Span> expected;
    regex_->FindAll(text, expected);
    EXPECT_EQ(ByScanner(GetParam().scanner, text), expected) << '"' << std::string(text) << '"';
  }
  std::unique_ptr<Regex> regex_;
};

TEST_P(SplitPatternsTest, IsFoundByItsText) {
  EXPECT_EQ(KnownSplitPattern(GetParam().pattern), GetParam().scanner);
}

TEST_P(SplitPatternsTest, EveryCodePointBetweenOthers) {
  for (char32_t c = 1; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    // Long uniform stretches are sampled.
    if ((c > 0x3400 && c < 0x1F000 && c % 16 != 0) || (c >= 0x20000 && c % 64 != 0)) continue;
    std::string text = "a ";
    unicode::AppendUtf8(c, text);
    text += "b1";
    unicode::AppendUtf8(c, text);
    text += "\n ";
    unicode::AppendUtf8(c, text);
    ExpectEqual(text);
    if (HasFailure()) return;
  }
}

// Every short string over the characters that the patterns tell apart.
TEST_P(SplitPatternsTest, AllShortStringsOfTheCriticalCharacters) {
  const std::string_view alphabet[] = {" ", "\n", "\r", "\t",     "'",      "s",
                                       "L", "1",  "!",  "\u00e9", "\u3000", "\u017f"};
  const size_t count = std::size(alphabet);
  for (int length = 1; length <= 4; ++length) {
    size_t total = 1;
    for (int i = 0; i < length; ++i) total *= count;
    for (size_t number = 0; number < total; ++number) {
      std::string text;
      for (size_t rest = number, i = 0; i < static_cast<size_t>(length); ++i, rest /= count)
        text += alphabet[rest % count];
      ExpectEqual(text);
      if (HasFailure()) return;
    }
  }
}

TEST_P(SplitPatternsTest, RandomText) {
  const uint32_t seed = std::random_device()();
  std::printf("seed %u\n", seed);
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::string_view pieces[] = {
      "'s",           "'S",     "'re",    "'VE", "'lL",    "'\u017f",    "don't",  " ",      "  ",
      "\n",           "\r\n",   "\t",     "12",  "3",      "4567",       "\u0663", "\u00bd", "?!",
      "\u4f60\u597d", "\u00a0", "\u2028", "a",   "\u0301", "\U0001F600", "_",      "\u0130", "'",
      "x'll",         "\u200d"};
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (uint32_t i = random() % 14; i > 0; --i) text += pieces[random() % std::size(pieces)];
    ExpectEqual(text);
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Known, SplitPatternsTest,
                         ::testing::Values(Case{kGpt2Pattern, SplitPattern::kGpt2},
                                           Case{kLlama3Pattern, SplitPattern::kLlama3},
                                           Case{kQwen2Pattern, SplitPattern::kQwen2}));

}  // namespace
}  // namespace finetuned
