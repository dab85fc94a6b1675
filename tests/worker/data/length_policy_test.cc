#include "worker/data/length_policy.h"

#include <random>

#include "gtest/gtest.h"
#include "tests/worker/data/test_util.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

// Renders "U:…\nA:…</s>" with the assistant's words and end trained.
class LengthPolicyTest : public ::testing::Test {
 protected:
  absl::StatusOr<TokenizedSample> Tokenize(const Conversation& c) {
    RenderedText text;
    for (const Turn& turn : c.turns) {
      if (turn.role == "assistant") {
        text.text += "A:";
        const size_t begin = text.text.size();
        text.text += turn.content + "</s>";
        text.responses.push_back({begin, text.text.size()});
      } else {
        text.text += (turn.role == "system" ? "S:" : "U:") + turn.content + "\n";
      }
    }
    last_text_ = text.text;
    return TokenizeRendered(text, {.tokenizer = tokenizer_.get()});
  }
  // What is rendered in the end, or "!reason".
  std::string Fit(Conversation c, LengthOptions options, bool* truncated = nullptr) {
    auto fitted =
        FitSample(c, options, *tokenizer_, [&](const Conversation& x) { return Tokenize(x); });
    if (!fitted.ok()) return "!" + ReasonOfBadRecord(fitted.status());
    EXPECT_LE(static_cast<int64_t>(fitted->sample.input_ids.size()), options.max_tokens);
    if (truncated != nullptr) *truncated = fitted->truncated;
    (void)Tokenize(c).ok();
    return last_text_;
  }
  static Conversation Make(std::vector<std::pair<const char*, std::string>> turns) {
    Conversation c;
    for (auto& [role, content] : turns) c.turns.push_back({role, std::move(content), ""});
    return c;
  }

  std::unique_ptr<Tokenizer> tokenizer_ = ByteTokenizer();
  std::string last_text_;
};

TEST_F(LengthPolicyTest, FittingSamplesAreLeftAlone) {
  bool truncated = true;
  EXPECT_EQ(Fit(Make({{"user", "q"}, {"assistant", "a"}}), {.max_tokens = 8}, &truncated),
            "U:q\nA:a</s>");
  EXPECT_FALSE(truncated);
  EXPECT_EQ(Fit(Make({{"user", "q"}, {"assistant", "a"}}), {.max_tokens = 7}), "!too_long");
}

TEST_F(LengthPolicyTest, OldestExchangesGoFirstAndSystemStays) {
  const Conversation c = Make({{"system", "s"},
                               {"user", "q1"},
                               {"assistant", "a1"},
                               {"user", "q2"},
                               {"assistant", "a2"},
                               {"user", "q3"},
                               {"assistant", "a3"}});
  bool truncated = false;
  // 4 for the system turn, 10 for each exchange.
  EXPECT_EQ(Fit(c, {.max_tokens = 34}), "S:s\nU:q1\nA:a1</s>U:q2\nA:a2</s>U:q3\nA:a3</s>");
  EXPECT_EQ(Fit(c, {.max_tokens = 33}, &truncated), "S:s\nU:q2\nA:a2</s>U:q3\nA:a3</s>");
  EXPECT_TRUE(truncated);
  EXPECT_EQ(Fit(c, {.max_tokens = 14}), "S:s\nU:q3\nA:a3</s>");
  EXPECT_EQ(Fit(c, {.max_tokens = 13}), "!too_long");
  EXPECT_EQ(Fit(c, {.max_tokens = 33, .drop_oldest_turns = false}), "!too_long");
}

TEST_F(LengthPolicyTest, Policies) {
  const Conversation c =
      Make({{"user", "0123456789"}, {"assistant", "abcdefghij"}});  // 13 + 13 tokens
  const auto fit = [&](LengthPolicy policy, int64_t max, int64_t min_response = 1) {
    return Fit(c, {.max_tokens = max, .policy = policy, .min_response_tokens = min_response});
  };
  EXPECT_EQ(fit(LengthPolicy::kReject, 20), "!too_long");
  EXPECT_EQ(fit(LengthPolicy::kTruncateResponse, 20), "U:0123456789\nA:abcd</s>");
  EXPECT_EQ(fit(LengthPolicy::kTruncateInstruction, 20), "U:0123\nA:abcdefghij</s>");
  EXPECT_EQ(fit(LengthPolicy::kProportional, 20), "U:0123456\nA:abcdefg</s>");
  EXPECT_EQ(fit(LengthPolicy::kTruncateResponse, 16), "!too_long")
      << "nothing of the response would be left";
  EXPECT_EQ(fit(LengthPolicy::kTruncateResponse, 20, 6), "!short_response_tokens")
      << "four letters and the end";
  EXPECT_EQ(fit(LengthPolicy::kTruncateResponse, 20, 5), "U:0123456789\nA:abcd</s>");
  Conversation text;
  text.plain_text = true;
  text.turns = {{"assistant", "abcdefghij", ""}};
  EXPECT_EQ(Fit(text, {.max_tokens = 8, .policy = LengthPolicy::kTruncateInstruction}),
            "A:abcde</s>");
}

TEST_F(LengthPolicyTest, CutsLookBackForASentence) {
  const std::string text = "One two. Three four! Five six seven";
  EXPECT_EQ(CutText(*tokenizer_, text, 30, 32), "One two. Three four!");
  EXPECT_EQ(CutText(*tokenizer_, text, 30, 0), "One two. Three four! Five six");
  EXPECT_EQ(CutText(*tokenizer_, text, 30, 5), "One two. Three four! Five six")
      << "no sentence ends so close";
  EXPECT_EQ(CutText(*tokenizer_, text, 100, 32), text);
  EXPECT_EQ(CutText(*tokenizer_, "Pi is 3.14159 and more", 15, 32), "Pi is 3.14159 a")
      << "no end of a sentence inside a number";
  EXPECT_EQ(CutText(*tokenizer_, "line one\nline two", 12, 32), "line one");
  EXPECT_EQ(CutText(*tokenizer_, "He said \"go.\" Then", 16, 32), "He said \"go.\"");
  EXPECT_EQ(CutText(*tokenizer_, "今日は。明日も", 16, 32), "今日は。");
}

TEST_F(LengthPolicyTest, CutsNeverSplitCharactersOrSpecialTokens) {
  std::mt19937_64 random(TestSeed());
  const std::string parts[] = {"ä", "日", "😀", "x", " ", "<|im_end|>", ".", "\n"};
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (size_t i = random() % 30; i > 0; --i) text += parts[random() % 8];
    const int64_t keep = static_cast<int64_t>(random() % 40);
    const std::string cut = CutText(*tokenizer_, text, keep, static_cast<int64_t>(random() % 10));
    ASSERT_EQ(text.compare(0, cut.size(), cut), 0);
    ASSERT_EQ(unicode::ValidUtf8Prefix(cut), cut.size());
    ASSERT_LE(static_cast<int64_t>(tokenizer_->Encode(cut, false).size()),
              std::max<int64_t>(keep, 0));
  }
}

TEST_F(LengthPolicyTest, NoTrainedToken) {
  auto c = Make({{"user", "q"}, {"assistant", "a"}});
  auto fitted =
      FitSample(c, {}, *tokenizer_, [&](const Conversation&) -> absl::StatusOr<TokenizedSample> {
        return TokenizeRendered({"abc", {}}, {.tokenizer = tokenizer_.get()});
      });
  EXPECT_EQ(ReasonOfBadRecord(fitted.status()), "no_trained_token");
}

}  // namespace
}  // namespace finetuned
