// What happens to a sample beyond max_seq_length.
//
// 1. With drop_oldest_turns the oldest exchanges (a user turn up to the next one) go until the rest
// fits; the system turn and the
//    last exchange stay.
// 2. What is still too long is cut by policy in the words of its last user turn and last assistant
// turn, and rendered
//    again, so that no token of the template and no end of turn is ever lost:
//      reject                 the sample is dropped ("too_long")
//      truncate_response      the end of the last assistant turn goes
//      truncate_instruction   the end of the last user turn goes
//      proportional           both lose tokens in proportion to their lengths
//    A cut falls between tokens, never inside a character, and moves back by up to
//    sentence_boundary_tokens to the end of a sentence or line. Plain text is its own response.
// 3. Fewer than min_response_tokens trained tokens left: dropped ("short_response_tokens"); none:
// "no_trained_token".
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "worker/data/conversation.h"
#include "worker/data/sample.h"
#include "worker/text/tokenizer.h"

namespace finetuned {

enum class LengthPolicy : uint8_t {
  kReject,
  kTruncateResponse,
  kTruncateInstruction,
  kProportional
};

// INVALID_ARGUMENT with the allowed names.
absl::StatusOr<LengthPolicy> ParseLengthPolicy(std::string_view name);

struct LengthOptions {
  int64_t max_tokens = 2048;
  LengthPolicy policy = LengthPolicy::kReject;
  bool drop_oldest_turns = true;
  int64_t sentence_boundary_tokens = 32;
  int64_t min_response_tokens = 1;
};

struct FittedSample {
  TokenizedSample sample;
  bool truncated = false;  // turns were dropped or words cut
};

using TokenizeConversation = std::function<absl::StatusOr<TokenizedSample>(const Conversation&)>;

// Makes `conversation` fit, changing it where something is dropped or cut. Errors: BadRecord (see
// above), and whatever `tokenize` returns.
absl::StatusOr<FittedSample> FitSample(Conversation& conversation, const LengthOptions& options,
                                       const Tokenizer& tokenizer,
                                       const TokenizeConversation& tokenize);

// The beginning of `text` of at most `keep` tokens, shortened to the end of a sentence or line when
// one lies among the last `look_back` of them. White space at the end goes.
std::string CutText(const Tokenizer& tokenizer, std::string_view text, int64_t keep,
                    int64_t look_back);

}  // namespace finetuned
