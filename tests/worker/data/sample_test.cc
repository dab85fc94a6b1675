#include "worker/data/sample.h"

#include "gtest/gtest.h"
#include "tests/worker/data/test_util.h"

namespace finetuned {
namespace {

std::string Mask(const TokenizedSample& sample) {
  std::string out;
  for (const uint8_t trained : sample.trained) out += trained ? '1' : '0';
  return out;
}

TEST(SampleTest, MaskFollowsSpans) {
  const auto tokenizer = ByteTokenizer();
  const RenderedText text{"abcdef", {{1, 3}, {5, 6}}};
  const TokenizedSample sample = TokenizeRendered(text, {.tokenizer = tokenizer.get()});
  EXPECT_EQ(Mask(sample), "011001");
  EXPECT_EQ(sample.trained_tokens, 3u);
  EXPECT_EQ(sample.response_tokens, 3u);
  EXPECT_EQ(Mask(TokenizeRendered(text, {.tokenizer = tokenizer.get(), .train_on_inputs = true})),
            "011111");
}

TEST(SampleTest, StraddlingTokenIsTrained) {
  const auto tokenizer = ByteTokenizer();
  // <|im_end|> is one token of ten bytes; the span begins in its middle and ends in the middle of
  // the next one.
  const RenderedText text{"a<|im_end|>b<|im_end|>c", {{5, 14}}};
  EXPECT_EQ(Mask(TokenizeRendered(text, {.tokenizer = tokenizer.get()})), "01110");
}

TEST(SampleTest, BosAndEosExactlyOnce) {
  const auto tokenizer = ByteTokenizer();
  const TokenizeOptions options{.tokenizer = tokenizer.get(), .bos_id = kBos, .eos_id = kEos};
  const TokenizedSample added = TokenizeRendered({"ab", {{1, 2}}}, options);
  EXPECT_EQ(added.input_ids, (std::vector<int32_t>{kBos, 'a', 'b', kEos}));
  EXPECT_EQ(Mask(added), "0011") << "EOS belongs to the response that ends there";
  const TokenizedSample there = TokenizeRendered({"<s>ab</s>", {{4, 9}}}, options);
  EXPECT_EQ(there.input_ids, added.input_ids);
  EXPECT_EQ(Mask(there), "0011");
  EXPECT_EQ(Mask(TokenizeRendered({"ab", {{0, 1}}}, options)), "0100")
      << "text after the response: EOS is not the assistant's";
}

TEST(SampleTest, FirstTokenIsNeverTrained) {
  const auto tokenizer = ByteTokenizer();
  EXPECT_EQ(Mask(TokenizeRendered({"ab", {{0, 2}}}, {.tokenizer = tokenizer.get()})), "01");
  EXPECT_TRUE(TokenizeRendered({"", {}}, {.tokenizer = tokenizer.get()}).input_ids.empty());
}

}  // namespace
}  // namespace finetuned
