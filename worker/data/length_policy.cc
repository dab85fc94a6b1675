#include "worker/data/length_policy.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

constexpr int kMaxCuts = 8;

int64_t TokenCount(const TokenizedSample& sample) {
  return static_cast<int64_t>(sample.input_ids.size());
}

// True when a sentence or line ends right before `position`.
bool EndsSentence(std::string_view text, size_t position) {
  if (position == 0) return false;
  if (text[position - 1] == '\n') return true;
  size_t end = position;
  while (end > 0) {  // closing quotes and brackets belong to the sentence
    const size_t begin = unicode::PreviousCodePoint(text, end);
    size_t at = begin;
    const char32_t c = unicode::DecodeUtf8(text, at);
    if (c == '"' || c == '\'' || c == ')' || c == ']' || c == 0x201D || c == 0x2019 || c == 0xBB) {
      end = begin;
      continue;
    }
    if (c == 0x3002 || c == 0xFF01 || c == 0xFF1F || c == 0x0964 || c == 0x061F)
      return true;  // 。！？।؟
    if (c != '.' && c != '!' && c != '?' && c != 0x2026) return false;
    // "3.14" and "e.g.x" go on; white space must follow.
    return position >= text.size() || text[position] == ' ' || text[position] == '\n' ||
           text[position] == '\t' || text[position] == '\r';
  }
  return false;
}

// First turns of the exchanges: user turns that follow no user turn.
std::vector<size_t> ExchangeStarts(const std::vector<Turn>& turns) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < turns.size(); ++i) {
    if (turns[i].role == "user" && (i == 0 || turns[i - 1].role != "user")) starts.push_back(i);
  }
  return starts;
}

// The conversation without its first `count` exchanges.
Conversation WithoutExchanges(const Conversation& conversation, const std::vector<size_t>& starts,
                              size_t count) {
  if (count == 0) return conversation;
  Conversation out = conversation;
  out.turns.erase(out.turns.begin() + static_cast<int64_t>(starts.front()),
                  out.turns.begin() + static_cast<int64_t>(starts[count]));
  return out;
}

Turn* LastTurn(Conversation& conversation, std::string_view role) {
  for (auto turn = conversation.turns.rbegin(); turn != conversation.turns.rend(); ++turn) {
    if (turn->role == role) return &*turn;
  }
  return nullptr;
}

// Takes `cut` tokens off the end of `turn`; false when that leaves nothing.
bool CutTurn(Turn* turn, int64_t cut, int64_t look_back, const Tokenizer& tokenizer) {
  if (cut <= 0) return true;
  if (turn == nullptr) return false;
  const int64_t count = static_cast<int64_t>(tokenizer.Encode(turn->content, false).size());
  if (count <= cut) return false;
  turn->content = CutText(tokenizer, turn->content, count - cut, look_back);
  return !turn->content.empty();
}

absl::Status TooLong(int64_t tokens, const LengthOptions& options, std::string_view why) {
  return BadRecord("too_long", absl::StrCat(tokens, " tokens, max_seq_length is ",
                                            options.max_tokens, std::string(why)));
}

}  // namespace

absl::StatusOr<LengthPolicy> ParseLengthPolicy(std::string_view name) {
  if (name == "reject" || name.empty()) return LengthPolicy::kReject;
  if (name == "truncate_response") return LengthPolicy::kTruncateResponse;
  if (name == "truncate_instruction") return LengthPolicy::kTruncateInstruction;
  if (name == "proportional") return LengthPolicy::kProportional;
  return absl::InvalidArgumentError(
      absl::StrCat("dataset.length.policy: \"", std::string(name),
                   "\" is not a policy; allowed: reject, truncate_response, truncate_instruction, "
                   "proportional"));
}

std::string CutText(const Tokenizer& tokenizer, std::string_view text, int64_t keep,
                    int64_t look_back) {
  const Tokenizer::Encoding encoding = tokenizer.EncodeWithOffsets(text, false);
  const int64_t count = static_cast<int64_t>(encoding.ids.size());
  if (keep >= count) return std::string(text);
  if (keep <= 0) return "";
  size_t cut = std::min(encoding.offsets[keep].first, text.size());
  for (int64_t token = keep - 1; token > 0 && token >= keep - look_back; --token) {
    const size_t end = encoding.offsets[token].second;
    if (end <= cut && EndsSentence(text, end)) {
      cut = end;
      break;
    }
  }
  while (cut > 0 && cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80)
    --cut;
  while (cut > 0 && (text[cut - 1] == ' ' || text[cut - 1] == '\n' || text[cut - 1] == '\t' ||
                     text[cut - 1] == '\r'))
    --cut;
  return std::string(text.substr(0, cut));
}

absl::StatusOr<FittedSample> FitSample(Conversation& conversation, const LengthOptions& options,
                                       const Tokenizer& tokenizer,
                                       const TokenizeConversation& tokenize) {
  FittedSample out;
  FT_ASSIGN_OR_RETURN(out.sample, tokenize(conversation));
  const int64_t original = TokenCount(out.sample);

  if (original > options.max_tokens && options.drop_oldest_turns && !conversation.plain_text) {
    const std::vector<size_t> starts = ExchangeStarts(conversation.turns);
    // The fewest exchanges to drop, by bisection: each one dropped makes the text shorter.
    size_t low = 0, high = starts.empty() ? 0 : starts.size() - 1;
    while (low < high) {
      const size_t middle = low + (high - low) / 2;
      FT_ASSIGN_OR_RETURN(const TokenizedSample sample,
                          tokenize(WithoutExchanges(conversation, starts, middle)));
      if (TokenCount(sample) <= options.max_tokens) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    if (high > 0) {
      conversation = WithoutExchanges(conversation, starts, high);
      FT_ASSIGN_OR_RETURN(out.sample, tokenize(conversation));
      out.truncated = true;
    }
  }

  for (int cuts = 0; TokenCount(out.sample) > options.max_tokens; ++cuts) {
    if (options.policy == LengthPolicy::kReject) return TooLong(original, options, "");
    if (cuts == kMaxCuts) return TooLong(original, options, "; cutting did not make it fit");
    const int64_t over = TokenCount(out.sample) - options.max_tokens;
    Turn* const response =
        conversation.plain_text ? &conversation.turns.front() : LastTurn(conversation, "assistant");
    Turn* const instruction = conversation.plain_text ? nullptr : LastTurn(conversation, "user");
    int64_t response_cut = over;
    if (options.policy == LengthPolicy::kTruncateInstruction && instruction != nullptr)
      response_cut = 0;
    if (options.policy == LengthPolicy::kProportional && instruction != nullptr &&
        response != nullptr) {
      const int64_t a = static_cast<int64_t>(tokenizer.Encode(response->content, false).size());
      const int64_t b = static_cast<int64_t>(tokenizer.Encode(instruction->content, false).size());
      response_cut = a + b == 0 ? over : (over * a + a + b - 1) / (a + b);
    }
    if (!CutTurn(response, response_cut, options.sentence_boundary_tokens, tokenizer) ||
        !CutTurn(instruction, over - response_cut, options.sentence_boundary_tokens, tokenizer)) {
      return TooLong(original, options, "; what the policy may cut is shorter than the excess");
    }
    out.truncated = true;
    FT_ASSIGN_OR_RETURN(out.sample, tokenize(conversation));
  }

  if (out.sample.trained_tokens == 0) {
    return BadRecord("no_trained_token",
                     "the template leaves no token of the assistant to train on");
  }
  if (out.sample.response_tokens < options.min_response_tokens) {
    return BadRecord(
        "short_response_tokens",
        absl::StrCat(out.sample.response_tokens, " response tokens", out.truncated ? " left" : "",
                     ", min_response_tokens is ", options.min_response_tokens));
  }
  return out;
}

}  // namespace finetuned
