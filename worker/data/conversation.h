// The one internal form of a training record: a conversation of turns.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace finetuned {

struct Turn {
  std::string role;     // system | user | assistant | tool
  std::string content;  // UTF-8
  // Other members of the message as a JSON object ("tool_calls", "name", "reasoning_content" …),
  // passed through to the template; empty when there are none.
  std::string extra_json;

  bool HasToolCalls() const { return extra_json.find("\"tool_calls\"") != std::string::npos; }
};

struct Conversation {
  // A plain text has one turn without a role: no template, everything is trained.
  bool plain_text = false;
  std::vector<Turn> turns;
  std::string tools_json;       // the record's "tools" for the template, empty when there are none
  std::string sample_id;        // the record's own, or 16 hex digits of the content's hash
  std::string source;           // the record's own, or the file's name
  std::string conversation_id;  // empty when the record has none
  std::optional<double> quality_score;  // 0…1
};

// Notice → how often: things repaired or ignored without losing the record ("merged_user_turns",
// "bad_quality_score").
using Notes = std::map<std::string, int64_t>;

// A lost record's status: INVALID_ARGUMENT "reason: detail", `reason` a stable snake_case word.
absl::Status BadRecord(std::string_view reason, std::string_view detail);
// The two parts of such a status.
std::string ReasonOfBadRecord(const absl::Status& status);
std::string DetailOfBadRecord(const absl::Status& status);

// Merges user turns in a row (joined by a blank line) and rejects a leading assistant turn
// ("leading_assistant"), a conversation without an assistant turn ("no_assistant") and a system
// turn after the first ("late_system"). Two leading system turns are merged
// likewise. Turns after the last assistant turn are dropped with a note: no label depends on them.
// Plain text always passes.
absl::Status CheckRoles(Conversation& conversation, Notes& notes);

// Text over which exact duplicates are found: system, history, instruction and response, each
// stripped.
std::string DuplicateKey(const Conversation& conversation);

std::string_view StripWhitespace(std::string_view text);

}  // namespace finetuned
