// What a tokenizer is made of, whatever file it came from.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/text/added_tokens.h"
#include "worker/text/decoders.h"
#include "worker/text/normalizers.h"
#include "worker/text/post_processors.h"
#include "worker/text/pre_tokenizers.h"
#include "worker/text/token_model.h"

namespace finetuned {

struct TokenizerParts {
  std::unique_ptr<Normalizer> normalizer;  // may be null
  PreTokenization pre_tokenization;
  std::unique_ptr<TokenModel> model;
  std::vector<AddedToken> added;  // with their ids; no content and no id twice
  SpecialTokens special;
  std::unique_ptr<Decoder> decoder;  // may be null
};

}  // namespace finetuned
