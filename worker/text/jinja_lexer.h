// Splits a template into tokens exactly as jinja2's lexer does with trim_blocks and lstrip_blocks
// on and keep_trailing_newline off: one newline after a block tag or comment goes, blanks before
// one at the start of a line go, "-" strips all white space on its side, "+" keeps it. "\r\n" and
// "\r" count as "\n".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace finetuned::jinja {

struct Position {
  uint32_t line = 1;    // from 1
  uint32_t column = 1;  // in bytes, from 1
};

enum class TokenKind : uint8_t {
  kData,
  kBlockBegin,
  kBlockEnd,
  kVariableBegin,
  kVariableEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind;
  Position position;
  std::string text;  // data, name, operator or the string's value with escapes resolved
  int64_t integer = 0;
  double number = 0;
};

// "template NAME:LINE:COLUMN: MESSAGE" as InvalidArgument.
absl::Status ErrorAt(std::string_view name, Position position, std::string_view message);

// The last token is kEnd. Errors: InvalidArgument with line and column.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source, std::string_view name);

}  // namespace finetuned::jinja
