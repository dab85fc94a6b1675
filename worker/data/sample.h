// Rendered text → token ids with a loss mask.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/text/tokenizer.h"

namespace finetuned {

// Bytes [begin, end) of a rendered text.
struct TextSpan {
  size_t begin = 0, end = 0;
};

// A conversation as one text; `responses` are the assistant's stretches with their end of turn, in
// order.
struct RenderedText {
  std::string text;
  std::vector<TextSpan> responses;
};

struct TokenizeOptions {
  const Tokenizer* tokenizer = nullptr;
  // Ids put before and after the text unless it already begins (ends) with them; −1: none.
  int32_t bos_id = -1, eos_id = -1;
  bool train_on_inputs = false;
};

struct TokenizedSample {
  std::vector<int32_t> input_ids;
  std::vector<uint8_t> trained;  // same length, 0 or 1
  uint32_t trained_tokens = 0;
  uint32_t response_tokens = 0;  // tokens of the responses, whatever is trained
};

// A token belongs to a response when any byte of it does: a token that straddles a boundary is
// trained, as transformers' return_assistant_tokens_mask has it (it goes from char_to_token(begin)
// to char_to_token(end − 1), both included). An EOS that is put at the end belongs to the response
// that ends there. The first token of a sample is never trained: nothing comes before it.
TokenizedSample TokenizeRendered(const RenderedText& rendered, const TokenizeOptions& options);

}  // namespace finetuned
