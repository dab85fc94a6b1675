#include "worker/data/json_parser.h"

#include <charconv>
#include <deque>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "simdjson.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

void Convert(const simdjson::dom::element& element, Value& out, std::deque<std::string>& strings) {
  using simdjson::dom::element_type;
  switch (element.type()) {
    case element_type::NULL_VALUE:
      return;
    case element_type::BOOL:
      out.kind = Value::Kind::kBool;
      out.boolean = element.get_bool().value_unsafe();
      return;
    case element_type::INT64:
      out.kind = Value::Kind::kInt;
      out.integer = element.get_int64().value_unsafe();
      return;
    case element_type::UINT64:
      out.kind = Value::Kind::kNumberText;
      out.text = strings.emplace_back(absl::StrCat(element.get_uint64().value_unsafe()));
      return;
    case element_type::DOUBLE:
      out.kind = Value::Kind::kDouble;
      out.number = element.get_double().value_unsafe();
      return;
    case element_type::STRING:
      out.kind = Value::Kind::kString;
      out.text = element.get_string().value_unsafe();
      return;
    case element_type::ARRAY: {
      out.kind = Value::Kind::kArray;
      const simdjson::dom::array array = element.get_array().value_unsafe();
      out.items.reserve(array.size());
      for (const simdjson::dom::element item : array)
        Convert(item, out.items.emplace_back(), strings);
      return;
    }
    case element_type::OBJECT: {
      out.kind = Value::Kind::kObject;
      const simdjson::dom::object object = element.get_object().value_unsafe();
      out.keys.reserve(object.size());
      out.items.reserve(object.size());
      for (const auto& [key, item] : object) {
        out.keys.push_back(key);
        Convert(item, out.items.emplace_back(), strings);
      }
      return;
    }
  }
}

// Recursive descent over well-formed UTF-8; depth is bounded by kMaxJsonDepth.
class LenientParser {
 public:
  LenientParser(std::string_view text, std::deque<std::string>& strings)
      : text_(text), strings_(strings) {}

  absl::Status ParseDocument(Value& out) {
    if (absl::Status status = ParseValue(out, 0); !status.ok()) return status;
    SkipSpace();
    if (position_ < text_.size()) return Error("unexpected text after the value");
    return absl::OkStatus();
  }

 private:
  absl::Status Error(std::string_view what) const {
    if (position_ >= text_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("invalid_json: the value is cut off (",
                                                     std::string(what), ") at column ",
                                                     text_.size() + 1));
    }
    return absl::InvalidArgumentError(
        absl::StrCat("invalid_json: ", std::string(what), " at column ", position_ + 1));
  }
  void SkipSpace() {
    while (position_ < text_.size()) {
      const char c = text_[position_];
      if (c != ' ' && c != '\t' && c != '\n' && c != '\r') return;
      ++position_;
    }
  }
  bool Take(std::string_view word) {
    if (text_.substr(position_, word.size()) != word) return false;
    position_ += word.size();
    return true;
  }

  absl::Status ParseValue(Value& out, int depth) {
    if (depth >= kMaxJsonDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat("too_deep: nested deeper than ", kMaxJsonDepth, " levels"));
    }
    SkipSpace();
    if (position_ >= text_.size()) return Error("a value is missing");
    switch (text_[position_]) {
      case '{':
        return ParseObject(out, depth);
      case '[':
        return ParseArray(out, depth);
      case '"':
        out.kind = Value::Kind::kString;
        return ParseString(out.text);
      default:
        break;
    }
    if (Take("null") || Take("NaN") || Take("Infinity") || Take("-Infinity"))
      return absl::OkStatus();
    if (Take("true")) {
      out.kind = Value::Kind::kBool;
      out.boolean = true;
      return absl::OkStatus();
    }
    if (Take("false")) {
      out.kind = Value::Kind::kBool;
      return absl::OkStatus();
    }
    return ParseNumber(out);
  }

  absl::Status ParseObject(Value& out, int depth) {
    out.kind = Value::Kind::kObject;
    ++position_;
    SkipSpace();
    if (Take("}")) return absl::OkStatus();
    while (true) {
      SkipSpace();
      if (position_ >= text_.size() || text_[position_] != '"')
        return Error("a key in double quotes is missing");
      std::string_view key;
      if (absl::Status status = ParseString(key); !status.ok()) return status;
      SkipSpace();
      if (!Take(":")) return Error("':' is missing");
      out.keys.push_back(key);
      if (absl::Status status = ParseValue(out.items.emplace_back(), depth + 1); !status.ok())
        return status;
      SkipSpace();
      if (Take("}")) return absl::OkStatus();
      if (!Take(",")) return Error("',' or '}' is missing");
    }
  }

  absl::Status ParseArray(Value& out, int depth) {
    out.kind = Value::Kind::kArray;
    ++position_;
    SkipSpace();
    if (Take("]")) return absl::OkStatus();
    while (true) {
      if (absl::Status status = ParseValue(out.items.emplace_back(), depth + 1); !status.ok())
        return status;
      SkipSpace();
      if (Take("]")) return absl::OkStatus();
      if (!Take(",")) return Error("',' or ']' is missing");
    }
  }

  absl::Status ParseNumber(Value& out) {
    const size_t begin = position_;
    const auto digits = [&] {
      const size_t first = position_;
      while (position_ < text_.size() && text_[position_] >= '0' && text_[position_] <= '9')
        ++position_;
      return position_ - first;
    };
    bool whole = true;
    Take("-");
    const size_t first_digit = position_;
    const size_t count = digits();
    if (count == 0 || (count > 1 && text_[first_digit] == '0')) {
      position_ = begin;
      return Error("not a JSON value");
    }
    if (Take(".")) {
      whole = false;
      if (digits() == 0) return Error("a digit is missing");
    }
    if (Take("e") || Take("E")) {
      whole = false;
      if (!Take("+")) Take("-");
      if (digits() == 0) return Error("a digit is missing");
    }
    const std::string_view number = text_.substr(begin, position_ - begin);
    const char* end = number.data() + number.size();
    if (whole) {
      out.kind = Value::Kind::kInt;
      if (std::from_chars(number.data(), end, out.integer).ec == std::errc())
        return absl::OkStatus();
    } else {
      out.kind = Value::Kind::kDouble;
      if (std::from_chars(number.data(), end, out.number).ec == std::errc())
        return absl::OkStatus();
    }
    out.kind = Value::Kind::kNumberText;
    out.text = strings_.emplace_back(number);
    return absl::OkStatus();
  }

  absl::Status ParseString(std::string_view& out) {
    ++position_;
    std::string& text = strings_.emplace_back();
    while (true) {
      if (position_ >= text_.size()) return Error("a string has no end");
      const char c = text_[position_];
      if (c == '"') break;
      if (static_cast<unsigned char>(c) < 0x20) {
        return Error(c == '\0' ? "a NUL byte in a string" : "a control character in a string");
      }
      if (c != '\\') {
        text += c;
        ++position_;
        continue;
      }
      ++position_;
      if (position_ >= text_.size()) return Error("a string has no end");
      const char escape = text_[position_++];
      static constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
      if (const size_t index = kFrom.find(escape); index != std::string_view::npos) {
        text += kTo[index];
      } else if (escape == 'u') {
        char32_t code = 0;
        if (!Hex(code)) return Error("\\u without four hex digits");
        if (code >= 0xD800 && code < 0xDC00) {
          const size_t before = position_;
          char32_t low = 0;
          if (Take("\\u") && Hex(low) && low >= 0xDC00 && low < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
          } else {
            position_ = before;
          }
        }
        if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
        unicode::AppendUtf8(code, text);
      } else {
        --position_;
        return Error("an unknown escape in a string");
      }
    }
    ++position_;
    out = text;
    return absl::OkStatus();
  }

  bool Hex(char32_t& out) {
    if (position_ + 4 > text_.size()) return false;
    const char* begin = text_.data() + position_;
    uint32_t code = 0;
    const auto result = std::from_chars(begin, begin + 4, code, 16);
    if (result.ec != std::errc() || result.ptr != begin + 4) return false;
    position_ += 4;
    out = code;
    return true;
  }

  std::string_view text_;
  std::deque<std::string>& strings_;
  size_t position_ = 0;
};

}  // namespace

struct JsonParser::State {
  // Capacity is bounded by the readers' own record limit.
  simdjson::dom::parser parser;
  std::deque<std::string> strings;
  Value value;
};

JsonParser::JsonParser() : state_(std::make_unique<State>()) {}
JsonParser::~JsonParser() = default;

absl::StatusOr<const Value*> JsonParser::Parse(std::string_view text) {
  State& state = *state_;
  state.strings.clear();
  state.value = Value();
  if (state.parser.capacity() < text.size() || state.parser.max_depth() != kMaxJsonDepth) {
    // The parser's own growth would reset the depth limit to its default.
    if (state.parser.allocate(std::max<size_t>(text.size(), 1 << 16), kMaxJsonDepth)) {
      return absl::ResourceExhaustedError("no memory for a JSON record");
    }
  }
  simdjson::dom::element element;
  const auto error =
      state.parser.parse(text.data(), text.size(), /*realloc_if_needed=*/true).get(element);
  if (error == simdjson::DEPTH_ERROR) {
    return absl::InvalidArgumentError(
        absl::StrCat("too_deep: nested deeper than ", kMaxJsonDepth, " levels"));
  }
  if (error) return ParseLeniently(text);
  Convert(element, state.value, state.strings);
  return &state.value;
}

absl::StatusOr<const Value*> JsonParser::ParseLeniently(std::string_view text) {
  const size_t valid = unicode::ValidUtf8Prefix(text);
  if (valid != text.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("invalid_utf8: byte ", valid + 1, " of the record is not UTF-8"));
  }
  state_->strings.clear();
  state_->value = Value();
  if (absl::Status status = LenientParser(text, state_->strings).ParseDocument(state_->value);
      !status.ok()) {
    return status;
  }
  return &state_->value;
}

}  // namespace finetuned
