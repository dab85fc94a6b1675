#include "worker/data/conversation.h"

#include "absl/strings/str_cat.h"

namespace finetuned {

absl::Status BadRecord(std::string_view reason, std::string_view detail) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(reason), ": ", std::string(detail)));
}

std::string ReasonOfBadRecord(const absl::Status& status) {
  const std::string message(status.message());
  return message.substr(0, message.find(": "));
}

std::string DetailOfBadRecord(const absl::Status& status) {
  const std::string message(status.message());
  const size_t colon = message.find(": ");
  return colon == std::string::npos ? "" : message.substr(colon + 2);
}

std::string_view StripWhitespace(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

absl::Status CheckRoles(Conversation& conversation, Notes& notes) {
  if (conversation.plain_text) return absl::OkStatus();
  std::vector<Turn> turns;
  bool has_assistant = false;
  for (Turn& turn : conversation.turns) {
    const bool mergeable = turn.role == "user" || turn.role == "system";
    if (mergeable && !turns.empty() && turns.back().role == turn.role && turn.extra_json.empty() &&
        turns.back().extra_json.empty()) {
      absl::StrAppend(&turns.back().content, "\n\n", turn.content);
      ++notes[turn.role == "user" ? "merged_user_turns" : "merged_system_turns"];
      continue;
    }
    if (turn.role == "system" && !turns.empty()) {
      return BadRecord("late_system", absl::StrCat("turn ", turns.size() + 1,
                                                   " is a system turn; only the first may be"));
    }
    if (turn.role == "assistant") {
      if (turns.empty() || (turns.size() == 1 && turns.front().role == "system")) {
        return BadRecord("leading_assistant", "the assistant speaks before any user turn");
      }
      has_assistant = true;
    }
    turns.push_back(std::move(turn));
  }
  // Nothing after the last assistant turn can be learned from.
  while (has_assistant && turns.back().role != "assistant") {
    turns.pop_back();
    ++notes["trailing_turns"];
  }
  conversation.turns = std::move(turns);
  if (!has_assistant)
    return BadRecord("no_assistant", "the conversation has no assistant turn to learn from");
  return absl::OkStatus();
}

std::string DuplicateKey(const Conversation& conversation) {
  std::string key;
  for (const Turn& turn : conversation.turns) {
    // Unit separators keep "a" + "bc" apart from "ab" + "c".
    absl::StrAppend(&key, turn.role, "\x1F", std::string(StripWhitespace(turn.content)), "\x1F",
                    turn.extra_json, "\x1E");
  }
  if (!conversation.tools_json.empty()) absl::StrAppend(&key, "\x1D", conversation.tools_json);
  return key;
}

}  // namespace finetuned
