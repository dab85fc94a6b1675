// Record shapes: which columns of a record become which turns.
//
// Columns are looked up as: the custom column of dataset.columns first, else the first key of the
// list below that is present and not null. Values that are no strings become text.
//   instruction        instruction | prompt | input | question
//   response           response | output | answer | completion
//   system             system | system_prompt
//   context            input_context | context | background: the system turn where there is no
//   other system text,
//                      else appended to the instruction after a blank line
//   alpaca             instruction, input (appended after a blank line when not blank), output,
//   history [[q, a], …] messages           messages (or conversations …) of {role, content, …};
//   content may be a list of text parts sharegpt           conversations of {from, value}
//   prompt_completion  prompt, completion: texts or lists of messages
//   text               text
// Optional: sample_id | id, conversation_id, source, quality_score (0…1), tools.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/data/conversation.h"
#include "worker/data/value.h"

namespace finetuned {

enum class Shape : uint8_t {
  kUnknown,
  kInstruction,
  kAlpaca,
  kMessages,
  kSharegpt,
  kPromptCompletion,
  kText
};

// Names as in dataset.shape; "unknown" for kUnknown.
std::string_view ShapeName(Shape shape);
// kUnknown for "auto"; INVALID_ARGUMENT with the known names otherwise.
absl::StatusOr<Shape> ParseShape(std::string_view name);

// Canonical column → own column.
using Columns = std::map<std::string, std::string>;
// INVALID_ARGUMENT naming the canonical columns when a key is none of them.
absl::Status CheckColumns(const Columns& columns);

// The shape of one record by its keys; a custom column decides where one is given.
Shape DetectShape(const Value& record, const Columns& columns = {});

// The record's turns. BadRecord: "not_an_object", "missing_instruction", "missing_response",
// "missing_text", "missing_messages", "bad_role", "bad_message", "unsupported_content". Bad
// optional fields only make notes. sample_id and source stay empty when the record has none.
absl::StatusOr<Conversation> MapRecord(const Value& record, Shape shape, const Columns& columns,
                                       Notes& notes);

}  // namespace finetuned
