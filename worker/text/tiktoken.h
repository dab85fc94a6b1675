// Rank files of tiktoken and Mistral's tekken.json: byte-pair encodings whose ids are their ranks.
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "worker/text/tokenizer_parts.h"

namespace finetuned {

// Whether the first line is a base64 token and a number.
bool LooksLikeTiktoken(std::string_view bytes);
// Whether this is JSON that lists tokens as `token_bytes`.
bool LooksLikeTekken(std::string_view bytes);

// A rank file holds tokens alone. How text is cut before is told by their number, which differs
// between the published files (GPT-2 and p50k, cl100k and Llama 3, o200k and Llama 4, Qwen); any
// other number has cl100k's pattern, as in transformers. There are no special tokens in it; those
// of a model stand in its tokenizer_config.json. INVALID_ARGUMENT names the line that is wrong.
absl::StatusOr<TokenizerParts> ReadTiktoken(std::string_view bytes);

// A tekken.json says its pattern and its special tokens, which become special added tokens with the
// lowest ids. Nothing is put around a text. INVALID_ARGUMENT names the field that is wrong.
absl::StatusOr<TokenizerParts> ReadTekken(std::string_view bytes);

}  // namespace finetuned
