#include "worker/data/shapes.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace {

using Keys = std::initializer_list<std::string_view>;

constexpr std::pair<std::string_view, Shape> kShapeNames[] = {
    {"instruction", Shape::kInstruction},
    {"alpaca", Shape::kAlpaca},
    {"messages", Shape::kMessages},
    {"sharegpt", Shape::kSharegpt},
    {"prompt_completion", Shape::kPromptCompletion},
    {"text", Shape::kText}};

constexpr std::string_view kColumns[] = {
    "instruction",   "response",  "system",          "context",   "category", "source",
    "quality_score", "timestamp", "conversation_id", "sample_id", "messages", "conversations",
    "text",          "prompt",    "completion",      "input",     "output",   "history",
    "tools"};

// Role names in the wild → ours.
constexpr std::pair<std::string_view, std::string_view> kRoles[] = {
    {"system", "system"},       {"developer", "system"},
    {"user", "user"},           {"human", "user"},
    {"prompter", "user"},       {"instruction", "user"},
    {"assistant", "assistant"}, {"gpt", "assistant"},
    {"bot", "assistant"},       {"chatgpt", "assistant"},
    {"chatbot", "assistant"},   {"model", "assistant"},
    {"ai", "assistant"},        {"bing", "assistant"},
    {"bard", "assistant"},      {"tool", "tool"},
    {"function", "tool"},       {"observation", "tool"},
    {"ipython", "tool"},        {"function_response", "tool"},
    {"tool_response", "tool"},  {"function_call", "assistant"},
    {"tool_call", "assistant"}};

constexpr std::string_view kListKeys[] = {"messages", "conversations", "conversation", "dialogue",
                                          "dialog",   "turns",         "chat"};

std::string Names(absl::Span<const std::string_view> names) {
  std::string joined;
  for (const std::string_view name : names) {
    absl::StrAppend(&joined, joined.empty() ? "" : ", ", std::string(name));
  }
  return joined;
}

const Value* Lookup(const Value& record, const Columns& columns, std::string_view canonical,
                    Keys keys) {
  if (const auto custom = columns.find(std::string(canonical)); custom != columns.end()) {
    return record.FindPresent(custom->second);
  }
  for (const std::string_view key : keys) {
    if (const Value* found = record.FindPresent(key)) return found;
  }
  return nullptr;
}

bool IsTurn(const Value& value) {
  return value.is_object() && (value.Find("role") != nullptr || value.Find("from") != nullptr);
}
bool IsTurnList(const Value& value) {
  return value.is_array() && !value.items.empty() && IsTurn(value.items.front());
}

// The list of turns of a record, nullptr when there is none. A list itself is one, too.
const Value* FindTurnList(const Value& record, const Columns& columns) {
  if (record.is_array()) return IsTurnList(record) ? &record : nullptr;
  for (const std::string_view canonical : {"messages", "conversations"}) {
    if (const auto custom = columns.find(std::string(canonical)); custom != columns.end()) {
      return record.FindPresent(custom->second);
    }
  }
  for (const std::string_view key : kListKeys) {
    const Value* found = record.FindPresent(key);
    if (found != nullptr && found->is_array() &&
        (found->items.empty() || IsTurn(found->items.front())))
      return found;
  }
  return nullptr;
}

absl::StatusOr<std::string> ContentText(const Value& content) {
  if (!content.is_array()) return ToText(content);
  // Content in parts, as the OpenAI format has it: text parts are joined, anything else cannot be
  // trained on.
  std::string text;
  for (const Value& part : content.items) {
    if (part.is_string()) {
      absl::StrAppend(&text, std::string(part.text));
      continue;
    }
    const Value* value = part.is_object() ? part.FindPresent("text") : nullptr;
    if (value == nullptr) {
      const Value* type = part.is_object() ? part.FindPresent("type") : nullptr;
      return BadRecord("unsupported_content", absl::StrCat("a content part of type \"",
                                                           type == nullptr ? "?" : ToText(*type),
                                                           "\"; only text is trained on"));
    }
    absl::StrAppend(&text, ToText(*value));
  }
  return text;
}

absl::Status AppendTurn(const Value& message, std::vector<Turn>& turns) {
  if (!message.is_object())
    return BadRecord("bad_message", absl::StrCat("turn ", turns.size() + 1, " is no object"));
  const Value* role = message.FindPresent("role");
  if (role == nullptr) role = message.FindPresent("from");
  if (role == nullptr || !role->is_string()) {
    return BadRecord("bad_message",
                     absl::StrCat("turn ", turns.size() + 1, " has no \"role\" or \"from\""));
  }
  Turn turn;
  const std::string given = absl::AsciiStrToLower(std::string(StripWhitespace(role->text)));
  for (const auto& [name, canonical] : kRoles) {
    if (given == name) turn.role = canonical;
  }
  if (turn.role.empty()) {
    return BadRecord(
        "bad_role",
        absl::StrCat("turn ", turns.size() + 1, " has role \"", std::string(role->text),
                     "\"; known: system, user, assistant, tool and their usual synonyms"));
  }
  const Value* content = nullptr;
  for (const std::string_view key : {"content", "value", "text"}) {
    if (content == nullptr) content = message.FindPresent(key);
  }
  if (content != nullptr) {
    FT_ASSIGN_OR_RETURN(turn.content, ContentText(*content));
  }
  std::string extra;
  for (size_t i = 0; i < message.keys.size(); ++i) {
    const std::string_view key = message.keys[i];
    if (key == "tool_calls" || key == "tool_call_id" || key == "name" ||
        key == "reasoning_content" || key == "thinking") {
      if (message.items[i].is_null()) continue;
      extra += extra.empty() ? '{' : ',';
      AppendJsonString(key, extra);
      absl::StrAppend(&extra, ":", ToJson(message.items[i]));
    }
  }
  if (!extra.empty()) turn.extra_json = extra + "}";
  if (content == nullptr && !turn.HasToolCalls()) {
    return BadRecord("bad_message",
                     absl::StrCat("turn ", turns.size() + 1, " (", turn.role, ") has no content"));
  }
  turns.push_back(std::move(turn));
  return absl::OkStatus();
}

absl::Status AppendTurns(const Value& list, std::vector<Turn>& turns) {
  for (const Value& message : list.items) FT_RETURN_IF_ERROR(AppendTurn(message, turns));
  return absl::OkStatus();
}

absl::Status Missing(std::string_view what, std::string_view looked_for) {
  return BadRecord(
      absl::StrCat("missing_", std::string(what)),
      absl::StrCat("no ", std::string(what), " (looked for ", std::string(looked_for), ")"));
}

// system and context of a flat record. Context that is not needed as the system turn is returned.
std::string TakeSystem(const Value& record, const Columns& columns, std::vector<Turn>& turns) {
  const Value* system = Lookup(record, columns, "system", {"system", "system_prompt"});
  const Value* context =
      Lookup(record, columns, "context", {"input_context", "context", "background"});
  std::string system_text = system == nullptr ? "" : ToText(*system);
  std::string context_text = context == nullptr ? "" : ToText(*context);
  if (StripWhitespace(system_text).empty()) system_text = std::exchange(context_text, "");
  if (!StripWhitespace(system_text).empty())
    turns.push_back({"system", std::move(system_text), ""});
  return StripWhitespace(context_text).empty() ? "" : context_text;
}

absl::Status MapInstruction(const Value& record, const Columns& columns, Conversation& out) {
  const Value* instruction =
      Lookup(record, columns, "instruction", {"instruction", "prompt", "input", "question"});
  const Value* response =
      Lookup(record, columns, "response", {"response", "output", "answer", "completion"});
  if (instruction == nullptr) return Missing("instruction", "instruction, prompt, input, question");
  if (response == nullptr) return Missing("response", "response, output, answer, completion");
  const std::string context = TakeSystem(record, columns, out.turns);
  std::string user = ToText(*instruction);
  if (!context.empty()) absl::StrAppend(&user, "\n\n", context);
  out.turns.push_back({"user", std::move(user), ""});
  out.turns.push_back({"assistant", ToText(*response), ""});
  return absl::OkStatus();
}

absl::Status MapAlpaca(const Value& record, const Columns& columns, Conversation& out,
                       Notes& notes) {
  const Value* instruction = Lookup(record, columns, "instruction", {"instruction"});
  const Value* input = Lookup(record, columns, "input", {"input"});
  const Value* output = columns.count("response") > 0
                            ? Lookup(record, columns, "response", {})
                            : Lookup(record, columns, "output", {"output"});
  if (instruction == nullptr) return Missing("instruction", "instruction");
  if (output == nullptr) return Missing("response", "output");
  const std::string context = TakeSystem(record, columns, out.turns);
  if (const Value* history = Lookup(record, columns, "history", {"history"})) {
    for (const Value& pair : history->items) {
      if (!pair.is_array() || pair.items.size() != 2) {
        ++notes["bad_history"];
        continue;
      }
      out.turns.push_back({"user", ToText(pair.items[0]), ""});
      out.turns.push_back({"assistant", ToText(pair.items[1]), ""});
    }
  }
  std::string user = ToText(*instruction);
  const std::string input_text = input == nullptr ? "" : ToText(*input);
  for (const std::string& part : {input_text, context}) {
    if (StripWhitespace(part).empty()) continue;
    if (!StripWhitespace(user).empty()) user += "\n\n";
    user += part;
  }
  out.turns.push_back({"user", std::move(user), ""});
  out.turns.push_back({"assistant", ToText(*output), ""});
  return absl::OkStatus();
}

absl::Status MapTurnList(const Value& record, const Columns& columns, Conversation& out) {
  const Value* list = FindTurnList(record, columns);
  if (list == nullptr || !list->is_array()) return Missing("messages", Names(kListKeys));
  if (list->items.empty()) return BadRecord("missing_messages", "the list of messages is empty");
  if (record.is_object()) {
    const Value* system = Lookup(record, columns, "system", {"system", "system_prompt"});
    if (system != nullptr && system->is_string() && !StripWhitespace(system->text).empty()) {
      out.turns.push_back({"system", std::string(system->text), ""});
    }
  }
  return AppendTurns(*list, out.turns);
}

absl::Status MapPromptCompletion(const Value& record, const Columns& columns, Conversation& out) {
  const Value* prompt = Lookup(record, columns, "prompt", {"prompt"});
  const Value* completion = Lookup(record, columns, "completion", {"completion"});
  if (prompt == nullptr) return Missing("instruction", "prompt");
  if (completion == nullptr) return Missing("response", "completion");
  if (IsTurnList(*prompt)) {
    FT_RETURN_IF_ERROR(AppendTurns(*prompt, out.turns));
  } else {
    const std::string context = TakeSystem(record, columns, out.turns);
    out.turns.push_back(
        {"user", context.empty() ? ToText(*prompt) : absl::StrCat(ToText(*prompt), "\n\n", context),
         ""});
  }
  if (IsTurnList(*completion)) return AppendTurns(*completion, out.turns);
  out.turns.push_back({"assistant", ToText(*completion), ""});
  return absl::OkStatus();
}

void MapOptionalFields(const Value& record, const Columns& columns, Conversation& out,
                       Notes& notes) {
  const auto text = [&](std::string_view canonical, Keys keys) -> std::string {
    const Value* value = Lookup(record, columns, canonical, keys);
    if (value == nullptr) return "";
    if (value->is_string() || value->is_number()) return ToText(*value);
    ++notes[absl::StrCat("bad_", std::string(canonical))];
    return "";
  };
  out.sample_id = text("sample_id", {"sample_id", "id"});
  out.conversation_id = text("conversation_id", {"conversation_id"});
  out.source = text("source", {"source"});
  if (const Value* quality = Lookup(record, columns, "quality_score", {"quality_score"})) {
    const std::string written = ToText(*quality);
    double score = -1;
    const auto result = std::from_chars(written.data(), written.data() + written.size(), score);
    if (result.ec == std::errc() && result.ptr == written.data() + written.size() && score >= 0 &&
        score <= 1) {
      out.quality_score = score;
    } else if (!written.empty()) {
      ++notes["bad_quality_score"];
    }
  }
  if (const Value* tools = Lookup(record, columns, "tools", {"tools"})) {
    if (tools->is_array()) {
      if (!tools->items.empty()) out.tools_json = ToJson(*tools);
    } else if (tools->is_string() && StripWhitespace(tools->text).substr(0, 1) == "[") {
      out.tools_json =
          std::string(tools->text);  // a list written as a string, as column formats hold it
    } else if (!tools->is_string() || !StripWhitespace(tools->text).empty()) {
      ++notes["bad_tools"];
    }
  }
}

}  // namespace

std::string_view ShapeName(Shape shape) {
  for (const auto& [name, value] : kShapeNames) {
    if (value == shape) return name;
  }
  return "unknown";
}

absl::StatusOr<Shape> ParseShape(std::string_view name) {
  if (name == "auto" || name.empty()) return Shape::kUnknown;
  for (const auto& [known, value] : kShapeNames) {
    if (known == name) return value;
  }
  std::string names = "auto";
  for (const auto& [known, value] : kShapeNames) absl::StrAppend(&names, ", ", std::string(known));
  return absl::InvalidArgumentError(absl::StrCat("dataset.shape: \"", std::string(name),
                                                 "\" is not a record shape; allowed: ", names));
}

absl::Status CheckColumns(const Columns& columns) {
  for (const auto& [canonical, own] : columns) {
    if (std::find(std::begin(kColumns), std::end(kColumns), canonical) == std::end(kColumns)) {
      return absl::InvalidArgumentError(
          absl::StrCat("dataset.columns: \"", canonical, "\" is not a canonical column; allowed: ",
                       Names(kColumns), " (write canonical: own, as in {instruction: frage})"));
    }
    if (own.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("dataset.columns.", canonical,
                       " is empty; name the column of your file, or remove the key"));
    }
  }
  return absl::OkStatus();
}

Shape DetectShape(const Value& record, const Columns& columns) {
  const auto custom = [&](std::string_view key) { return columns.count(std::string(key)) > 0; };
  const auto has = [&](std::string_view key) { return record.FindPresent(key) != nullptr; };
  if (record.is_object()) {
    if (custom("messages")) return Shape::kMessages;
    if (custom("conversations")) return Shape::kSharegpt;
    if (custom("text")) return Shape::kText;
    if (custom("prompt") || custom("completion")) return Shape::kPromptCompletion;
    if (custom("input") || custom("output") || custom("history")) return Shape::kAlpaca;
    if (custom("instruction") || custom("response")) return Shape::kInstruction;
  }
  if (const Value* list = FindTurnList(record, columns); list != nullptr && !list->items.empty()) {
    return list->items.front().Find("role") != nullptr ? Shape::kMessages : Shape::kSharegpt;
  }
  if (!record.is_object()) return Shape::kUnknown;
  if (has("instruction") && has("output") && (record.Find("input") != nullptr || has("history")))
    return Shape::kAlpaca;
  if (has("prompt") && has("completion")) return Shape::kPromptCompletion;
  const bool instruction = has("instruction") || has("prompt") || has("input") || has("question");
  const bool response = has("response") || has("output") || has("answer") || has("completion");
  if (instruction && response) return Shape::kInstruction;
  if (has("text")) return Shape::kText;
  return Shape::kUnknown;
}

absl::StatusOr<Conversation> MapRecord(const Value& record, Shape shape, const Columns& columns,
                                       Notes& notes) {
  Conversation out;
  if (!record.is_object() && FindTurnList(record, columns) == nullptr) {
    return BadRecord("not_an_object", "the record is no JSON object");
  }
  if (record.is_object()) {
    if (record.HasDuplicateKeys()) ++notes["duplicate_keys"];
    MapOptionalFields(record, columns, out, notes);
  }
  switch (shape) {
    case Shape::kInstruction:
      FT_RETURN_IF_ERROR(MapInstruction(record, columns, out));
      break;
    case Shape::kAlpaca:
      FT_RETURN_IF_ERROR(MapAlpaca(record, columns, out, notes));
      break;
    case Shape::kMessages:
    case Shape::kSharegpt:
      FT_RETURN_IF_ERROR(MapTurnList(record, columns, out));
      break;
    case Shape::kPromptCompletion:
      FT_RETURN_IF_ERROR(MapPromptCompletion(record, columns, out));
      break;
    case Shape::kText: {
      const Value* text = Lookup(record, columns, "text", {"text"});
      if (text == nullptr) return Missing("text", "text");
      out.plain_text = true;
      out.turns.push_back({"", ToText(*text), ""});
      break;
    }
    case Shape::kUnknown:
      return BadRecord("unknown_shape", "the record's keys fit no known shape");
  }
  return out;
}

}  // namespace finetuned
