// json.dumps and strftime, as Python has them.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "worker/text/jinja.h"
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

constexpr int kMaxDepth = 200;
constexpr size_t kMaxJsonBytes = size_t{1} << 30;

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, std::string* out, std::string* error)
      : style_(style), out_(*out), error_(*error) {}

  bool Write(const Value& value, int depth) {
    if (depth > kMaxDepth) return Fail("nested more than 200 levels deep");
    if (out_.size() > kMaxJsonBytes) return Fail("the JSON text is too long");
    switch (value.type) {
      case Type::kNone:
        out_ += "null";
        return true;
      case Type::kBool:
        out_ += value.b ? "true" : "false";
        return true;
      case Type::kInt:
        out_ += std::to_string(value.i);
        return true;
      case Type::kFloat:
        out_ += Number(value.d);
        return true;
      case Type::kString:
        Quote(Text(value));
        return true;
      case Type::kList:
      case Type::kTuple:
        return Array(value.as<SequenceObject>()->items, depth);
      case Type::kDict:
        return Dict(*value.as<DictObject>(), depth);
      default:
        return Fail(Cat("Object of type ", TypeName(value), " is not JSON serializable"));
    }
  }

 private:
  bool Fail(std::string message) {
    error_ = std::move(message);
    return false;
  }

  static std::string Number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return ReprFloat(value);
  }

  void NewLine(int depth) {
    if (!style_.indented) return;
    out_ += '\n';
    for (int i = 0; i < depth; ++i) out_ += style_.indent;
  }

  bool Array(const std::vector<Value>& items, int depth) {
    if (items.empty()) {
      out_ += "[]";
      return true;
    }
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      NewLine(depth + 1);
      if (!Write(items[i], depth + 1)) return false;
    }
    NewLine(depth);
    out_ += ']';
    return true;
  }

  bool Key(const Value& key, std::string* text) {
    switch (key.type) {
      case Type::kString:
        *text = Text(key);
        return true;
      case Type::kBool:
        *text = key.b ? "true" : "false";
        return true;
      case Type::kNone:
        *text = "null";
        return true;
      case Type::kInt:
        *text = std::to_string(key.i);
        return true;
      case Type::kFloat:
        *text = Number(key.d);
        return true;
      default:
        return Fail(Cat("keys must be str, int, float, bool or None, not ", TypeName(key)));
    }
  }

  bool Dict(const DictObject& dict, int depth) {
    if (dict.items.empty()) {
      out_ += "{}";
      return true;
    }
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& item : dict.items) order.push_back(&item);
    if (style_.sort_keys) {
      for (const auto* item : order) {
        if (!item->first.IsString() && order.size() > 1)
          return Fail("sort_keys needs keys that are all strings");
      }
      std::sort(order.begin(), order.end(),
                [](const auto* a, const auto* b) { return Text(a->first) < Text(b->first); });
    }
    out_ += '{';
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      NewLine(depth + 1);
      std::string key;
      if (!Key(order[i]->first, &key)) return false;
      Quote(key);
      out_ += style_.key_separator;
      if (!Write(order[i]->second, depth + 1)) return false;
    }
    NewLine(depth);
    out_ += '}';
    return true;
  }

  void Quote(std::string_view text) {
    out_ += '"';
    for (size_t pos = 0; pos < text.size();) {
      const size_t begin = pos;
      const char32_t c = DecodeUtf8(text, &pos);
      static constexpr std::string_view kFrom = "\"\\\n\r\t\f\b";
      static constexpr std::string_view kTo = "\"\\nrtfb";
      const size_t escape = c < 0x80 ? kFrom.find(static_cast<char>(c)) : std::string_view::npos;
      if (escape != std::string_view::npos) {
        out_ += '\\';
        out_ += kTo[escape];
      } else if (c < 0x20 || (style_.ensure_ascii && c >= 0x7F)) {
        if (c == 0x7F) {
          out_ += '\x7F';
        } else if (c < 0x10000) {
          Unit(c);
        } else {
          Unit(0xD800 + ((c - 0x10000) >> 10));
          Unit(0xDC00 + ((c - 0x10000) & 0x3FF));
        }
      } else {
        out_ += text.substr(begin, pos - begin);
      }
    }
    out_ += '"';
  }

  void Unit(char32_t unit) {
    char buffer[16];
    std::snprintf(buffer, sizeof buffer, "\\u%04x", static_cast<unsigned>(unit));
    out_ += buffer;
  }

  const JsonStyle& style_;
  std::string& out_;
  std::string& error_;
};

}  // namespace

bool ToJson(const Value& value, const JsonStyle& style, std::string* out, std::string* error) {
  return JsonWriter(style, out, error).Write(value, 0);
}

std::string Strftime(std::string_view format, absl::Time time, absl::TimeZone zone) {
  // datetime without a zone prints nothing for %z and %Z, and %f is its own: microseconds.
  std::string prepared;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 >= format.size()) {
      prepared += format[i];
      continue;
    }
    const char c = format[++i];
    if (c == 'f') {
      const int64_t micros = absl::ToUnixMicros(time);
      const std::string digits = std::to_string(1000000 + ((micros % 1000000) + 1000000) % 1000000);
      prepared += digits.substr(1);
    } else if (c != 'z' && c != 'Z') {
      prepared += '%';
      prepared += c;
    }
  }
  if (prepared.empty()) return "";
  const std::tm parts = absl::ToTM(time, zone);
  std::string out(prepared.size() * 8 + 256, '\0');
  out.resize(std::strftime(out.data(), out.size(), prepared.c_str(), &parts));
  return out;
}

}  // namespace finetuned::jinja
