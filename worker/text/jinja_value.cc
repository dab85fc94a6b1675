#include "worker/text/jinja_value.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

constexpr int kMaxDepth = 200;
// Lists that share their elements can print exponentially long; what is longer than this no caller
// accepts.
constexpr size_t kMaxReprBytes = size_t{1} << 30;
thread_local int64_t equality_work = INT64_MAX;
constexpr size_t kIndexedDictSize = 16;

void AppendRepr(const Value& value, int depth, std::string* out);

void AppendItems(const std::vector<Value>& items, int depth, std::string* out) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) *out += ", ";
    AppendRepr(items[i], depth + 1, out);
  }
}

void AppendPairs(const std::vector<std::pair<Value, Value>>& items, int depth, std::string* out) {
  *out += '{';
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) *out += ", ";
    AppendRepr(items[i].first, depth + 1, out);
    *out += ": ";
    AppendRepr(items[i].second, depth + 1, out);
  }
  *out += '}';
}

void AppendRepr(const Value& value, int depth, std::string* out) {
  if (depth > kMaxDepth || out->size() > kMaxReprBytes) {
    *out += "...";
    return;
  }
  switch (value.type) {
    case Type::kMissing:
    case Type::kUndefined:
      *out += "Undefined";
      return;
    case Type::kNone:
      *out += "None";
      return;
    case Type::kBool:
      *out += value.b ? "True" : "False";
      return;
    case Type::kInt:
      *out += std::to_string(value.i);
      return;
    case Type::kFloat:
      *out += ReprFloat(value.d);
      return;
    case Type::kString:
      if (value.as<StringObject>()->markup) {
        *out += "Markup(" + ReprString(Text(value)) + ")";
      } else {
        *out += ReprString(Text(value));
      }
      return;
    case Type::kList:
      *out += '[';
      AppendItems(value.as<SequenceObject>()->items, depth, out);
      *out += ']';
      return;
    case Type::kTuple: {
      const auto& items = value.as<SequenceObject>()->items;
      *out += '(';
      AppendItems(items, depth, out);
      *out += items.size() == 1 ? ",)" : ")";
      return;
    }
    case Type::kDict:
      AppendPairs(value.as<DictObject>()->items, depth, out);
      return;
    case Type::kView:
      *out += value.as<SequenceObject>()->view;
      *out += "([";
      AppendItems(value.as<SequenceObject>()->items, depth, out);
      *out += "])";
      return;
    case Type::kRange: {
      const auto* range = value.as<SequenceObject>();
      *out += "range(" + std::to_string(range->start) + ", " + std::to_string(range->stop);
      if (range->step != 1) *out += ", " + std::to_string(range->step);
      *out += ')';
      return;
    }
    case Type::kNamespace: {
      *out += "<Namespace {";
      bool first = true;
      for (const auto& [name, attribute] : value.as<NamespaceObject>()->attributes) {
        if (!first) *out += ", ";
        first = false;
        *out += ReprString(name) + ": ";
        AppendRepr(attribute, depth + 1, out);
      }
      *out += "}>";
      return;
    }
    case Type::kGenerator:
      *out += "<generator object>";
      return;
    default:
      *out += value.object == nullptr ? "<object>" : value.object->Describe();
  }
}

bool EqualSequences(const std::vector<Value>& a, const std::vector<Value>& b, int depth) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!Equal(a[i], b[i], depth + 1)) return false;
  }
  return true;
}

bool EqualDicts(const DictObject& a, const DictObject& b, int depth) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, item] : a.items) {
    const Value* other = Find(b, key);
    if (other == nullptr || !Equal(item, *other, depth + 1)) return false;
  }
  return true;
}

}  // namespace

std::string_view TypeName(const Value& value) {
  switch (value.type) {
    case Type::kMissing:
    case Type::kUndefined:
      return "Undefined";
    case Type::kNone:
      return "NoneType";
    case Type::kBool:
      return "bool";
    case Type::kInt:
      return "int";
    case Type::kFloat:
      return "float";
    case Type::kString:
      return value.as<StringObject>()->markup ? "Markup" : "str";
    case Type::kList:
      return "list";
    case Type::kTuple:
      return "tuple";
    case Type::kDict:
      return "dict";
    case Type::kView:
      return value.as<SequenceObject>()->view;
    case Type::kRange:
      return "range";
    case Type::kGenerator:
      return "generator";
    case Type::kNamespace:
      return "Namespace";
    case Type::kMacro:
      return "Macro";
    case Type::kLoop:
      return "LoopContext";
    case Type::kFunction:
      return "function";
    case Type::kMethod:
      return "builtin_function_or_method";
    case Type::kCycler:
      return "Cycler";
    case Type::kJoiner:
      return "Joiner";
  }
  return "object";
}

bool Truthy(const Value& value) {
  switch (value.type) {
    case Type::kMissing:
    case Type::kUndefined:
    case Type::kNone:
      return false;
    case Type::kBool:
      return value.b;
    case Type::kInt:
      return value.i != 0;
    case Type::kFloat:
      return value.d != 0;
    case Type::kString:
      return !Text(value).empty();
    case Type::kList:
    case Type::kTuple:
    case Type::kView:
      return !value.as<SequenceObject>()->items.empty();
    case Type::kRange:
      return RangeLength(*value.as<SequenceObject>()) > 0;
    case Type::kDict:
      return !value.as<DictObject>()->items.empty();
    default:
      return true;
  }
}

std::string Repr(const Value& value) {
  std::string out;
  AppendRepr(value, 0, &out);
  return out;
}

std::string ToStr(const Value& value) {
  if (value.IsString()) return Text(value);
  if (value.IsUndefined()) return "";
  return Repr(value);
}

std::string ReprString(std::string_view text) {
  const bool double_quotes =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  char buffer[16];
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = DecodeUtf8(text, &pos);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c >= 0x20 && c < 0x7F) {
      out += static_cast<char>(c);
    } else if (c >= 0x80 && IsPrintable(c)) {
      out += text.substr(begin, pos - begin);
    } else {
      const char* format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
      std::snprintf(buffer, sizeof buffer, format, static_cast<unsigned>(c));
      out += buffer;
    }
  }
  out += quote;
  return out;
}

std::string ReprFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // The shortest digits that read back as the same double, laid out as Python does it: exponents
  // below -4 and from 16 on are written in scientific form.
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string_view text(buffer, end.ptr - buffer);
  std::string out;
  if (text.front() == '-') {
    out += '-';
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  std::string digits(1, text.front());
  if (e > 1) digits += text.substr(2, e - 2);
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (count > 1) out += "." + digits.substr(1);
    char tail[16];
    std::snprintf(tail, sizeof tail, "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
    return out + tail;
  }
  if (exponent < 0) return out + "0." + std::string(-exponent - 1, '0') + digits;
  if (count <= exponent + 1) return out + digits + std::string(exponent + 1 - count, '0') + ".0";
  return out + digits.substr(0, exponent + 1) + "." + digits.substr(exponent + 1);
}

void SetEqualityWork(int64_t comparisons) { equality_work = comparisons; }
bool EqualityWorkLeft() { return equality_work >= 0; }

bool Equal(const Value& a, const Value& b, int depth) {
  if (depth > kMaxDepth || --equality_work < 0) return false;
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsIntegral() && b.IsIntegral()) return a.AsInt() == b.AsInt();
    return a.AsDouble() == b.AsDouble();
  }
  if (a.type != b.type) return false;
  switch (a.type) {
    case Type::kUndefined:
    case Type::kNone:
      return true;
    case Type::kString:
      return Text(a) == Text(b);
    case Type::kList:
    case Type::kTuple:
      return a.object == b.object ||
             EqualSequences(a.as<SequenceObject>()->items, b.as<SequenceObject>()->items, depth);
    case Type::kRange: {
      const auto* x = a.as<SequenceObject>();
      const auto* y = b.as<SequenceObject>();
      const int64_t length = RangeLength(*x);
      if (length != RangeLength(*y)) return false;
      return length == 0 || (x->start == y->start && (length == 1 || x->step == y->step));
    }
    case Type::kDict:
      return a.object == b.object || EqualDicts(*a.as<DictObject>(), *b.as<DictObject>(), depth);
    default:
      return a.object == b.object;
  }
}

const Value* Find(const DictObject& dict, std::string_view key) {
  if (!dict.index.empty()) {
    const auto it = dict.index.find(key);
    return it == dict.index.end() ? nullptr : &dict.items[it->second].second;
  }
  for (const auto& [name, value] : dict.items) {
    if (name.IsString() && Text(name) == key) return &value;
  }
  return nullptr;
}

const Value* Find(const DictObject& dict, const Value& key) {
  if (key.IsString()) return Find(dict, std::string_view(Text(key)));
  for (const auto& [name, value] : dict.items) {
    if (Equal(name, key)) return &value;
  }
  return nullptr;
}

bool Hashable(const Value& value) {
  switch (value.type) {
    case Type::kList:
    case Type::kDict:
    case Type::kView:
      return false;
    case Type::kTuple:
      for (const Value& item : value.as<SequenceObject>()->items) {
        if (!Hashable(item)) return false;
      }
      return true;
    default:
      return true;
  }
}

void Insert(DictObject* dict, const Value& key, const Value& value) {
  if (const Value* existing = Find(*dict, key)) {
    *const_cast<Value*>(existing) = value;
    return;
  }
  dict->items.emplace_back(key, value);
  if (dict->items.size() < kIndexedDictSize) return;
  const size_t first_new = dict->index.empty() ? 0 : dict->items.size() - 1;
  for (size_t i = first_new; i < dict->items.size(); ++i) {
    const Value& name = dict->items[i].first;
    if (name.IsString()) dict->index.emplace(Text(name), static_cast<uint32_t>(i));
  }
}

int64_t RangeLength(const SequenceObject& range) {
  const __int128 start = range.start, stop = range.stop, step = range.step;
  if (step > 0) return start >= stop ? 0 : static_cast<int64_t>((stop - start + step - 1) / step);
  return start <= stop ? 0 : static_cast<int64_t>((start - stop - step - 1) / -step);
}

int64_t Length(const Value& value) {
  switch (value.type) {
    case Type::kUndefined:
      return 0;
    case Type::kString:
      return CodePointCount(Text(value));
    case Type::kList:
    case Type::kTuple:
    case Type::kView:
      return static_cast<int64_t>(value.as<SequenceObject>()->items.size());
    case Type::kRange:
      return RangeLength(*value.as<SequenceObject>());
    case Type::kDict:
      return static_cast<int64_t>(value.as<DictObject>()->items.size());
    default:
      return -1;
  }
}

}  // namespace finetuned::jinja
