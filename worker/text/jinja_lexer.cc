#include "worker/text/jinja_lexer.h"

#include <cctype>
#include <charconv>
#include <cstdlib>

#include "proto/base/status_macros.h"
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, std::string_view name)
      : source_(NormalizeNewlines(source)), name_(name) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (pos_ < source_.size()) FT_RETURN_IF_ERROR(Text());
    tokens_.push_back({TokenKind::kEnd, PositionOf(source_.size())});
    return std::move(tokens_);
  }

 private:
  std::string_view Rest(size_t pos) const { return std::string_view(source_).substr(pos); }
  bool At(size_t pos, std::string_view text) const {
    return Rest(pos).substr(0, text.size()) == text;
  }

  size_t SkipSpace(size_t pos) const {
    while (pos < source_.size()) {
      size_t next = pos;
      if (!IsSpace(DecodeUtf8(source_, &next))) break;
      pos = next;
    }
    return pos;
  }

  // Positions are asked for in rising order, so the line count goes on from the last one.
  Position PositionOf(size_t pos) {
    for (; counted_ < pos; ++counted_) {
      if (source_[counted_] == '\n') {
        ++line_;
        line_start_ = counted_ + 1;
      }
    }
    return {line_, static_cast<uint32_t>(pos - line_start_ + 1)};
  }

  // An error may lie before what has been counted, so it counts afresh.
  absl::Status Fail(size_t pos, std::string_view message) {
    counted_ = line_start_ = 0;
    line_ = 1;
    return ErrorAt(name_, PositionOf(pos), message);
  }

  void Add(TokenKind kind, size_t pos, std::string text = "") {
    tokens_.push_back({kind, PositionOf(pos), std::move(text)});
  }

  // Emits data before a tag that opens at `tag` with the given sign; lstrip is off for "{{".
  void AddData(size_t begin, size_t tag, char sign, bool lstrip) {
    std::string_view text = std::string_view(source_).substr(begin, tag - begin);
    if (sign == '-') {
      text = Strip(text, nullptr, false, true);
    } else if (sign != '+' && lstrip) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line > 0 || line_starting_) && line < text.size() &&
          Strip(text.substr(line), nullptr, true, true).empty()) {
        text = text.substr(0, line);
      }
    }
    if (!text.empty()) Add(TokenKind::kData, begin, std::string(text));
  }

  static char SignAt(std::string_view text) {
    return !text.empty() && (text[0] == '-' || text[0] == '+') ? text[0] : ' ';
  }

  // If the tag at `tag` is "{% raw %}", the position after it; otherwise npos.
  size_t MatchRawBegin(size_t tag) const {
    size_t pos = tag + 2;
    if (SignAt(Rest(pos)) != ' ') ++pos;
    pos = SkipSpace(pos);
    if (!At(pos, "raw")) return std::string::npos;
    pos = SkipSpace(pos + 3);
    if (At(pos, "-%}")) return SkipSpace(pos + 3);
    if (At(pos, "%}")) return pos + 2;
    return std::string::npos;
  }

  absl::Status Text() {
    size_t tag = pos_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        Add(TokenKind::kData, pos_, source_.substr(pos_));
        pos_ = source_.size();
        return absl::OkStatus();
      }
      const char next = source_[tag + 1];
      if (next == '%' || next == '{' || next == '#') break;
    }
    const char next = source_[tag + 1];
    if (next == '%') {
      if (const size_t after = MatchRawBegin(tag); after != std::string::npos)
        return Raw(tag, after);
    }
    const char sign = SignAt(Rest(tag + 2));
    AddData(pos_, tag, sign, next != '{');
    pos_ = tag + (sign == ' ' ? 2 : 3);
    line_starting_ = false;
    if (next == '#') return Comment(tag);
    Add(next == '%' ? TokenKind::kBlockBegin : TokenKind::kVariableBegin, tag);
    return Code(tag, next == '%');
  }

  // Moves past the end of a block tag or comment ("%}" or "#}" at pos, its sign before it).
  void CloseTag(size_t pos, char sign) {
    if (sign == '-') {
      pos = SkipSpace(pos);
    } else if (sign != '+' && At(pos, "\n")) {
      ++pos;
    }
    line_starting_ = pos > 0 && source_[pos - 1] == '\n';
    pos_ = pos;
  }

  absl::Status Comment(size_t tag) {
    const size_t end = source_.find("#}", pos_);
    if (end == std::string::npos)
      return Fail(tag, "Missing end of comment tag: \"#}\" is expected");
    const char sign = end > pos_ ? SignAt(Rest(end - 1)) : ' ';
    CloseTag(end + 2, sign);
    return absl::OkStatus();
  }

  absl::Status Raw(size_t tag, size_t body) {
    AddData(pos_, tag, SignAt(Rest(tag + 2)), true);
    line_starting_ = body > 0 && source_[body - 1] == '\n';
    for (size_t open = source_.find("{%", body); open != std::string::npos;
         open = source_.find("{%", open + 1)) {
      size_t pos = open + 2;
      const char begin_sign = SignAt(Rest(pos));
      if (begin_sign != ' ') ++pos;
      pos = SkipSpace(pos);
      if (!At(pos, "endraw")) continue;
      pos = SkipSpace(pos + 6);
      const char end_sign = SignAt(Rest(pos));
      if (end_sign != ' ') ++pos;
      if (!At(pos, "%}")) continue;
      AddData(body, open, begin_sign, true);
      CloseTag(pos + 2, end_sign);
      return absl::OkStatus();
    }
    return Fail(tag, "Missing end of raw directive: {% endraw %} is expected");
  }

  absl::Status Code(size_t tag, bool block) {
    const std::string_view close = block ? "%}" : "}}";
    std::vector<char> brackets;
    while (true) {
      pos_ = SkipSpace(pos_);
      if (pos_ >= source_.size()) {
        return Fail(tag, Cat("unexpected end of template: \"", close, "\" is expected"));
      }
      if (brackets.empty()) {
        const char sign = SignAt(Rest(pos_));
        const size_t end = pos_ + (sign == ' ' ? 0 : 1);
        // "+}}" is no end tag: the plus is an operator there.
        if (At(end, close) && (block || sign != '+')) {
          Add(block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd, pos_);
          if (block) {
            CloseTag(end + 2, sign);
          } else {
            pos_ = sign == '-' ? SkipSpace(end + 2) : end + 2;
            line_starting_ = source_[pos_ - 1] == '\n';
          }
          return absl::OkStatus();
        }
      }
      FT_RETURN_IF_ERROR(CodeToken(&brackets));
    }
  }

  absl::Status CodeToken(std::vector<char>* brackets) {
    const char c = source_[pos_];
    if (c >= '0' && c <= '9') return Number();
    if (c == '\'' || c == '"') return String(c);
    size_t next = pos_;
    if (IsIdentifierPart(DecodeUtf8(source_, &next))) return Name();
    static constexpr std::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (std::string_view op : kOperators) {
      if (!At(pos_, op)) continue;
      if (op == "{" || op == "(" || op == "[") {
        brackets->push_back(op == "{" ? '}' : op == "(" ? ')' : ']');
      } else if (op == "}" || op == ")" || op == "]") {
        if (brackets->empty()) return Fail(pos_, Cat("unexpected '", op, "'"));
        if (brackets->back() != op[0]) {
          return Fail(pos_, Cat("unexpected '", op, "', expected '",
                                std::string(1, brackets->back()), "'"));
        }
        brackets->pop_back();
      }
      Add(TokenKind::kOperator, pos_, std::string(op));
      pos_ += op.size();
      return absl::OkStatus();
    }
    next = pos_;
    DecodeUtf8(source_, &next);
    return Fail(pos_, Cat("unexpected char '", source_.substr(pos_, next - pos_), "'"));
  }

  absl::Status Name() {
    const size_t begin = pos_;
    size_t next = pos_;
    const bool good_start = IsIdentifierStart(DecodeUtf8(source_, &next));
    while (pos_ < source_.size()) {
      next = pos_;
      if (!IsIdentifierPart(DecodeUtf8(source_, &next))) break;
      pos_ = next;
    }
    if (!good_start) return Fail(begin, "Invalid character in identifier");
    Add(TokenKind::kName, begin, source_.substr(begin, pos_ - begin));
    return absl::OkStatus();
  }

  static bool IsDigitChar(char c) { return c >= '0' && c <= '9'; }
  char Peek(size_t pos) const { return pos < source_.size() ? source_[pos] : '\0'; }

  // Digits, single underscores between them allowed. Returns the end (begin if there is no digit).
  size_t SkipDigits(size_t pos, bool (*accept)(char)) const {
    while (true) {
      if (accept(Peek(pos))) {
        ++pos;
      } else if (Peek(pos) == '_' && accept(Peek(pos + 1))) {
        pos += 2;
      } else {
        return pos;
      }
    }
  }

  absl::Status Number() {
    const size_t begin = pos_;
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';
    if (!after_dot && FloatEnd(begin) != begin) {
      pos_ = FloatEnd(begin);
      Token token{TokenKind::kFloat, PositionOf(begin)};
      token.number = std::strtod(Digits(begin, pos_).c_str(), nullptr);
      tokens_.push_back(std::move(token));
      return absl::OkStatus();
    }
    int base = 10;
    size_t digits = begin;
    size_t end = begin;
    const char prefix =
        Peek(begin) == '0' ? static_cast<char>(std::tolower(Peek(begin + 1))) : '\0';
    if (prefix == 'b' || prefix == 'o' || prefix == 'x') {
      base = prefix == 'b' ? 2 : prefix == 'o' ? 8 : 16;
      digits = begin + 2;
      bool (*accept)(char) =
          prefix == 'b' ? [](char c) { return c == '0' || c == '1'; }
          : prefix == 'o'
              ? [](char c) { return c >= '0' && c <= '7'; }
              : [](char c) { return std::isxdigit(static_cast<unsigned char>(c)) != 0; };
      end = SkipDigits(digits, accept);
    }
    if (end <= digits) {
      base = 10;
      digits = begin;
      // A leading zero is a number of its own: "007" is three tokens, which the parser then
      // refuses.
      end = source_[begin] == '0' ? SkipDigits(begin, [](char c) { return c == '0'; })
                                  : SkipDigits(begin, IsDigitChar);
    }
    const std::string text = Digits(digits, end);
    Token token{TokenKind::kInteger, PositionOf(begin)};
    const auto [ptr, error] =
        std::from_chars(text.data(), text.data() + text.size(), token.integer, base);
    if (error != std::errc() || ptr != text.data() + text.size()) {
      return Fail(begin, "integer literal outside 64 bits");
    }
    tokens_.push_back(std::move(token));
    pos_ = end;
    return absl::OkStatus();
  }

  size_t FloatEnd(size_t begin) const {
    const size_t whole = SkipDigits(begin, IsDigitChar);
    size_t end = whole;
    if (Peek(whole) == '.' && IsDigitChar(Peek(whole + 1)))
      end = SkipDigits(whole + 1, IsDigitChar);
    const char e = Peek(end);
    if (e == 'e' || e == 'E') {
      size_t exponent = end + 1;
      if (Peek(exponent) == '+' || Peek(exponent) == '-') ++exponent;
      if (IsDigitChar(Peek(exponent))) return SkipDigits(exponent, IsDigitChar);
    }
    return end == whole ? begin : end;
  }

  std::string Digits(size_t begin, size_t end) const {
    std::string out;
    for (size_t i = begin; i < end; ++i) {
      if (source_[i] != '_') out += source_[i];
    }
    return out;
  }

  absl::Status String(char quote) {
    const size_t begin = pos_;
    std::string value;
    size_t pos = begin + 1;
    while (true) {
      if (pos >= source_.size())
        return Fail(begin, "unexpected char: the string that starts here has no end");
      const char c = source_[pos];
      if (c == quote) break;
      if (c != '\\') {
        value += c;
        ++pos;
        continue;
      }
      if (pos + 1 >= source_.size())
        return Fail(begin, "unexpected char: the string that starts here has no end");
      FT_RETURN_IF_ERROR(Escape(&pos, &value));
    }
    Add(TokenKind::kString, begin, std::move(value));
    pos_ = pos + 1;
    return absl::OkStatus();
  }

  absl::Status Escape(size_t* pos, std::string* value) {
    const size_t begin = *pos;
    const char c = source_[begin + 1];
    *pos = begin + 2;
    static constexpr std::string_view kFrom = "\\'\"abfnrtv";
    static constexpr std::string_view kTo = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t k = kFrom.find(c); k != std::string_view::npos) {
      *value += kTo[k];
      return absl::OkStatus();
    }
    if (c == '\n') return absl::OkStatus();
    if (c >= '0' && c <= '7') {
      unsigned code = 0;
      *pos = begin + 1;
      for (int k = 0; k < 3 && Peek(*pos) >= '0' && Peek(*pos) <= '7'; ++k)
        code = code * 8 + (source_[(*pos)++] - '0');
      AppendUtf8(code, value);
      return absl::OkStatus();
    }
    const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (length == 0) {
      if (c == 'N')
        return Fail(begin, "\\N{…} escapes are not supported; write the character itself");
      *value += '\\';  // Python keeps an escape that it does not know.
      *value += c;
      return absl::OkStatus();
    }
    uint32_t code = 0;
    for (size_t k = 0; k < length; ++k) {
      const char h = Peek(begin + 2 + k);
      if (!std::isxdigit(static_cast<unsigned char>(h))) {
        return Fail(begin, Cat("truncated \\", std::string(1, c), " escape"));
      }
      code = code * 16 +
             (std::isdigit(static_cast<unsigned char>(h)) ? h - '0' : std::tolower(h) - 'a' + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      return Fail(begin, "illegal Unicode character in escape");
    AppendUtf8(code, value);
    *pos = begin + 2 + length;
    return absl::OkStatus();
  }

  const std::string source_;
  const std::string_view name_;
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  bool line_starting_ = true;
  size_t counted_ = 0;
  size_t line_start_ = 0;
  uint32_t line_ = 1;
};

}  // namespace

absl::Status ErrorAt(std::string_view name, Position position, std::string_view message) {
  return absl::InvalidArgumentError(
      Cat("template ", name, ":", position.line, ":", position.column, ": ", message));
}

absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source, std::string_view name) {
  return Lexer(source, name).Run();
}

}  // namespace finetuned::jinja
