#include "worker/data/value.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

std::string DoubleText(double number) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, number).ptr;
  std::string text(buffer, end);
  // 3.0 stays recognisably a fraction, as Python and JavaScript's JSON writers differ on it; the
  // file said 3.0.
  if (text.find_first_of(".en") == std::string::npos) text += ".0";
  return text;
}

void AppendJson(const Value& value, std::string& out) {
  switch (value.kind) {
    case Value::Kind::kNull:
      out += "null";
      return;
    case Value::Kind::kString:
      AppendJsonString(value.text, out);
      return;
    case Value::Kind::kArray:
      out += '[';
      for (size_t i = 0; i < value.items.size(); ++i) {
        if (i > 0) out += ',';
        AppendJson(value.items[i], out);
      }
      out += ']';
      return;
    case Value::Kind::kObject:
      out += '{';
      for (size_t i = 0; i < value.items.size(); ++i) {
        if (i > 0) out += ',';
        AppendJsonString(value.keys[i], out);
        out += ':';
        AppendJson(value.items[i], out);
      }
      out += '}';
      return;
    default:
      out += ToText(value);
  }
}

}  // namespace

const Value* Value::Find(std::string_view key) const {
  for (size_t i = keys.size(); i-- > 0;) {
    if (keys[i] == key) return &items[i];
  }
  return nullptr;
}

const Value* Value::FindPresent(std::string_view key) const {
  const Value* found = Find(key);
  return found == nullptr || found->is_null() ? nullptr : found;
}

bool Value::HasDuplicateKeys() const {
  if (keys.size() > 64) return false;
  for (size_t i = 0; i < keys.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (keys[i] == keys[j]) return true;
    }
  }
  return false;
}

std::string ToText(const Value& value) {
  switch (value.kind) {
    case Value::Kind::kNull:
      return "";
    case Value::Kind::kBool:
      return value.boolean ? "true" : "false";
    case Value::Kind::kInt:
      return absl::StrCat(value.integer);
    case Value::Kind::kDouble:
      return DoubleText(value.number);
    case Value::Kind::kNumberText:
    case Value::Kind::kString:
      return std::string(value.text);
    default:
      return ToJson(value);
  }
}

std::string ToJson(const Value& value) {
  std::string out;
  AppendJson(value, out);
  return out;
}

void AppendJsonString(std::string_view text, std::string& out) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string repaired;
  if (unicode::ValidUtf8Prefix(text) != text.size()) {
    repaired = unicode::ToValidUtf8(text);
    text = repaired;
  }
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kHex[c >> 4];
          out += kHex[c & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

}  // namespace finetuned
