// Filters on one value (text and numbers) and the table of all filters; those on sequences are in
// jinja_sequence_filters.cc.
#include "worker/text/jinja_filters.h"

#include <algorithm>
#include <cmath>

#include "absl/container/flat_hash_map.h"
#include "worker/text/jinja_ast.h"
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_format.h"
#include "worker/text/jinja_html.h"
#include "worker/text/jinja_numbers.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

using Values = std::vector<Value>;

template <std::string (*function)(std::string_view)>
Value TextFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  return interpreter.Bind("filter", args, {}, 0, &bound)
             ? interpreter.String(function(ToStr(value)))
             : Value();
}

// The filter's idea of words: what follows blanks, hyphens and opening brackets.
std::string TitleWords(std::string_view text) {
  std::string out;
  std::string word;
  const auto flush = [&] {
    if (word.empty()) return;
    size_t first = 0;
    DecodeUtf8(word, &first);
    out += Upper(std::string_view(word).substr(0, first)) +
           Lower(std::string_view(word).substr(first));
    word.clear();
  };
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = DecodeUtf8(text, &pos);
    const bool separator = IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    if (separator) flush();
    (separator ? out : word) += text.substr(begin, pos - begin);
  }
  flush();
  return out;
}

Value StringFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("string", args, {}, 0, &bound)) return Value();
  return value.IsString() ? value : interpreter.String(ToStr(value));
}

Value TrimFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("trim", args, {"chars"}, 0, &bound)) return Value();
  const std::string text = ToStr(value);
  if (bound[0].is(Type::kMissing) || bound[0].is(Type::kNone)) {
    return interpreter.String(Strip(text, nullptr, true, true));
  }
  if (!bound[0].IsString()) return interpreter.Fail("strip arg must be None or str");
  return interpreter.String(Strip(text, &Text(bound[0]), true, true));
}

Value ReplaceFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("replace", args, {"old", "new", "count"}, 2, &bound)) return Value();
  Args forward;
  forward.positional = {
      interpreter.String(ToStr(bound[0])), interpreter.String(ToStr(bound[1])),
      bound[2].is(Type::kMissing) || bound[2].is(Type::kNone) ? Value::Int(-1) : bound[2]};
  const Value text = interpreter.String(ToStr(value));
  if (!interpreter.ok()) return Value();
  bool unsafe = false;
  return FindMethod(text, "replace", &unsafe)(interpreter, text, forward);
}

Value CenterFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("center", args, {"width"}, 0, &bound)) return Value();
  Args forward;
  forward.positional = {bound[0].is(Type::kMissing) ? Value::Int(80) : bound[0]};
  const Value text = interpreter.String(ToStr(value));
  if (!interpreter.ok()) return Value();
  bool unsafe = false;
  return FindMethod(text, "center", &unsafe)(interpreter, text, forward);
}

Value FormatFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  if (!args.positional.empty() && !args.named.empty()) {
    return interpreter.Fail("can't handle positional and keyword arguments at the same time");
  }
  const Value text = interpreter.String(ToStr(value));
  if (!interpreter.ok()) return Value();
  if (args.named.empty())
    return FormatPercent(interpreter, text, interpreter.Tuple(args.positional));
  auto* dict = interpreter.arena().New<DictObject>();
  for (const auto& [name, item] : args.named) Insert(dict, interpreter.String(name), item);
  return FormatPercent(interpreter, text, Value::Of(Type::kDict, dict));
}

Value IndentFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("indent", args, {"width", "first", "blank"}, 0, &bound)) return Value();
  if (!value.IsString()) {
    return value.IsUndefined()
               ? interpreter.FailUndefined(value)
               : interpreter.Fail("unsupported operand type(s) for +=: indent needs a string");
  }
  std::string indent;
  if (bound[0].IsString()) {
    indent = Text(bound[0]);
  } else {
    const int64_t width = interpreter.IntArgument(bound[0], 4);
    if (!interpreter.Reserve(static_cast<size_t>(std::max<int64_t>(0, width)))) return Value();
    indent.assign(static_cast<size_t>(std::max<int64_t>(0, width)), ' ');
  }
  const std::string text = Text(value) + "\n";
  const bool blank = Truthy(bound[2]);
  std::string out = Truthy(bound[1]) ? indent : "";
  bool first = true;
  for (std::string_view line : SplitLines(text, false)) {
    if (!first) out += "\n";
    if (!first && (blank || !line.empty())) out += indent;
    first = false;
    out += line;
    if (!interpreter.Step() || !interpreter.Reserve(out.size())) return Value();
  }
  return interpreter.String(std::move(out));
}

Value TruncateFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("truncate", args, {"length", "killwords", "end", "leeway"}, 0, &bound))
    return Value();
  const int64_t length = interpreter.IntArgument(bound[0], 255);
  const std::string end = bound[2].is(Type::kMissing) ? "..." : ToStr(bound[2]);
  const int64_t leeway = bound[3].is(Type::kNone) ? 5 : interpreter.IntArgument(bound[3], 5);
  const int64_t end_length = CodePointCount(end);
  if (!interpreter.ok()) return Value();
  if (length < end_length) {
    return interpreter.Fail(Cat("expected length >= ", end_length, ", got ", length));
  }
  if (leeway < 0) return interpreter.Fail(Cat("expected leeway >= 0, got ", leeway));
  const int64_t have = Length(value);
  if (have < 0) return interpreter.Fail(Cat("object of type '", TypeName(value), "' has no len()"));
  if (have <= length || have - length <= leeway) return value;
  if (!value.IsString()) return interpreter.Fail("truncate needs a string");
  std::string_view text = Text(value);
  text = text.substr(0, ByteOffset(text, length - end_length));
  if (!Truthy(bound[1])) text = text.substr(0, std::min(text.rfind(' '), text.size()));
  return interpreter.String(Cat(text, end));
}

Value WordcountFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("wordcount", args, {}, 0, &bound)) return Value();
  const std::string text = ToStr(value);
  int64_t words = 0;
  bool inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = DecodeUtf8(text, &pos);
    const bool word = IsAlnum(c) || c == '_';
    words += word && !inside;
    inside = word;
  }
  return Value::Int(words);
}

// Python's textwrap.wrap on one line: words, blanks and hyphenated parts are chunks; a chunk longer
// than a line is cut.
std::vector<std::string> WrapLine(std::string_view line, size_t width, bool break_long,
                                  bool break_hyphens) {
  std::vector<std::string> chunks;
  const std::vector<std::string_view> characters = SplitCodePoints(line);
  const auto blank = [](std::string_view c) {
    return c == " " || c == "\t" || c == "\x0b" || c == "\x0c";
  };
  const auto letter = [](std::string_view c) {
    size_t pos = 0;
    return IsAlpha(DecodeUtf8(c, &pos));
  };
  for (size_t i = 0; i < characters.size();) {
    std::string chunk;
    const bool space = blank(characters[i]);
    while (i < characters.size() && blank(characters[i]) == space) {
      chunk += characters[i++];
      const bool hyphen = break_hyphens && !space && chunk.back() == '-' && i >= 2 &&
                          i + 1 < characters.size() && letter(characters[i - 2]) &&
                          letter(characters[i]) && letter(characters[i + 1]) && i >= 3 &&
                          letter(characters[i - 3]);
      if (hyphen) break;
    }
    chunks.push_back(std::move(chunk));
  }
  std::vector<std::string> lines;
  const auto length = [](const std::string& text) {
    return static_cast<size_t>(CodePointCount(text));
  };
  const auto is_blank = [](const std::string& text) {
    return Strip(text, nullptr, true, true).empty();
  };
  for (size_t i = 0; i < chunks.size();) {
    std::vector<std::string> current;
    size_t used = 0;
    if (is_blank(chunks[i]) && !lines.empty()) ++i;
    while (i < chunks.size() && used + length(chunks[i]) <= width) {
      used += length(chunks[i]);
      current.push_back(chunks[i++]);
    }
    if (i < chunks.size() && length(chunks[i]) > width) {
      const size_t room = width < 1 ? 1 : width - used;
      if (break_long && room > 0) {
        const size_t cut = ByteOffset(chunks[i], static_cast<int64_t>(room));
        current.push_back(chunks[i].substr(0, cut));
        chunks[i].erase(0, cut);
      } else if (current.empty()) {
        current.push_back(chunks[i++]);
      }
    }
    if (!current.empty() && is_blank(current.back())) current.pop_back();
    if (current.empty()) continue;
    std::string text;
    for (const std::string& chunk : current) text += chunk;
    lines.push_back(std::move(text));
  }
  return lines;
}

Value WordwrapFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("wordwrap", args,
                        {"width", "break_long_words", "wrapstring", "break_on_hyphens"}, 0,
                        &bound)) {
    return Value();
  }
  if (!value.IsString()) return interpreter.Fail("wordwrap needs a string");
  const int64_t width = interpreter.IntArgument(bound[0], 79);
  if (width <= 0) return interpreter.Fail("invalid width: must be > 0");
  const bool break_long = bound[1].is(Type::kMissing) || Truthy(bound[1]);
  const bool hyphens = bound[3].is(Type::kMissing) || Truthy(bound[3]);
  const std::string join = bound[2].IsString() ? Text(bound[2]) : "\n";
  std::string out;
  bool first = true;
  for (std::string_view line : SplitLines(Text(value), false)) {
    if (!interpreter.Step(static_cast<int64_t>(line.size()))) return Value();
    if (!first) out += join;
    first = false;
    bool first_part = true;
    for (const std::string& part :
         WrapLine(line, static_cast<size_t>(width), break_long, hyphens)) {
      if (!first_part) out += join;
      first_part = false;
      out += part;
      if (!interpreter.Reserve(out.size())) return Value();
    }
  }
  return interpreter.String(std::move(out));
}

std::string StripTags(std::string_view text) {
  std::string clean(text);
  for (const auto& [open, close] :
       {std::pair<std::string_view, std::string_view>{"<!--", "-->"}, {"<", ">"}}) {
    std::string next;
    size_t pos = 0;
    while (true) {
      const size_t begin = clean.find(open, pos);
      const size_t end = begin == std::string::npos ? begin : clean.find(close, begin);
      if (end == std::string::npos) break;
      next += clean.substr(pos, begin - pos);
      pos = end + close.size();
    }
    clean = next + clean.substr(pos);
  }
  std::string out;
  for (std::string_view word : Split(clean, nullptr, -1)) {
    if (!out.empty()) out += ' ';
    out += word;
  }
  for (const auto& [entity, character] :
       {std::pair<std::string_view, std::string_view>{"&lt;", "<"},
        {"&gt;", ">"},
        {"&#39;", "'"},
        {"&#34;", "\""},
        {"&quot;", "\""},
        {"&amp;", "&"}}) {
    out = Replace(out, entity, character, -1);
  }
  return out;
}

Value EscapeFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("escape", args, {}, 0, &bound)) return Value();
  if (value.IsString() && value.as<StringObject>()->markup) return value;
  return interpreter.Markup(EscapeHtml(ToStr(value)));
}

Value ForceEscapeFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  return interpreter.Bind("forceescape", args, {}, 0, &bound)
             ? interpreter.Markup(EscapeHtml(ToStr(value)))
             : Value();
}

Value SafeFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  return interpreter.Bind("safe", args, {}, 0, &bound) ? interpreter.Markup(ToStr(value)) : Value();
}

std::string UrlQuote(std::string_view text, bool query) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !query);
    if (plain) {
      out += c;
    } else if (c == ' ' && query) {
      out += '+';
    } else {
      static constexpr char kHex[] = "0123456789ABCDEF";
      out += '%';
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[static_cast<unsigned char>(c) & 15];
    }
  }
  return out;
}

Value UrlencodeFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("urlencode", args, {}, 0, &bound)) return Value();
  if (value.IsString() || !interpreter.IsIterable(value))
    return interpreter.String(UrlQuote(ToStr(value), false));
  Values pairs;
  if (value.is(Type::kDict)) {
    for (const auto& [key, item] : value.as<DictObject>()->items)
      pairs.push_back(interpreter.Tuple({key, item}));
  } else {
    pairs = interpreter.Items(value);
  }
  std::string out;
  for (const Value& pair : pairs) {
    const Values parts = interpreter.Items(pair);
    if (interpreter.ok() && parts.size() != 2)
      interpreter.Fail("urlencode needs pairs of key and value");
    if (!interpreter.ok()) return Value();
    if (!out.empty()) out += '&';
    out += UrlQuote(ToStr(parts[0]), true) + "=" + UrlQuote(ToStr(parts[1]), true);
  }
  return interpreter.String(std::move(out));
}

Value XmlattrFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("xmlattr", args, {"autospace"}, 0, &bound)) return Value();
  if (!value.is(Type::kDict))
    return interpreter.Fail(Cat("'", TypeName(value), "' object has no items"));
  std::string out;
  for (const auto& [key, item] : value.as<DictObject>()->items) {
    if (item.is(Type::kNone) || item.IsUndefined()) continue;
    if (!key.IsString()) return interpreter.Fail("xmlattr needs keys that are strings");
    if (Text(key).find_first_of(" \t\n\r\f\v/>=") != std::string::npos) {
      return interpreter.Fail(Cat("Invalid character in attribute name: ", ReprString(Text(key))));
    }
    const bool markup = item.IsString() && item.as<StringObject>()->markup;
    out += Cat(out.empty() ? "" : " ", EscapeHtml(Text(key)), "=\"",
               markup ? ToStr(item) : EscapeHtml(ToStr(item)), "\"");
  }
  const bool autospace = bound[0].is(Type::kMissing) || Truthy(bound[0]);
  return interpreter.String(autospace && !out.empty() ? " " + out : out);
}

Value TojsonFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"}, 0,
                        &bound)) {
    return Value();
  }
  JsonStyle style;
  style.ensure_ascii = Truthy(bound[0]);
  style.sort_keys = Truthy(bound[3]);
  if (bound[1].IsString()) {
    style.indented = true;
    style.indent = Text(bound[1]);
  } else if (!bound[1].is(Type::kMissing) && !bound[1].is(Type::kNone)) {
    const int64_t width = interpreter.IntArgument(bound[1], 0);
    if (!interpreter.ok()) return Value();
    if (width > 1000) return interpreter.Fail("tojson: an indent above 1000 is a mistake");
    style.indented = true;
    style.indent.assign(static_cast<size_t>(std::max<int64_t>(0, width)), ' ');
  }
  if (style.indented) style.item_separator = ",";
  if (!bound[2].is(Type::kMissing) && !bound[2].is(Type::kNone)) {
    const Values separators = interpreter.Items(bound[2]);
    if (!interpreter.ok()) return Value();
    if (separators.size() != 2 || !separators[0].IsString() || !separators[1].IsString()) {
      return interpreter.Fail("tojson: separators must be two strings");
    }
    style.item_separator = Text(separators[0]);
    style.key_separator = Text(separators[1]);
  }
  std::string out, error;
  if (!ToJson(value, style, &out, &error)) return interpreter.Fail(error);
  return interpreter.String(std::move(out));
}

Value PprintFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("pprint", args, {}, 0, &bound)) return Value();
  const std::string text = Repr(value);
  if (value.is(Type::kDict) || text.size() > 80) {
    return interpreter.Fail(
        "pprint is supported only for what fits on one line and is no dict; use tojson(indent=2)");
  }
  return interpreter.String(text);
}

Value AbsFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("abs", args, {}, 0, &bound)) return Value();
  if (value.is(Type::kFloat)) return Value::Float(std::fabs(value.d));
  if (value.IsIntegral())
    return value.AsInt() < 0 ? interpreter.Negate(value, true) : Value::Int(value.AsInt());
  return interpreter.Fail(Cat("bad operand type for abs(): '", TypeName(value), "'"));
}

Value RoundFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("round", args, {"precision", "method"}, 0, &bound)) return Value();
  const int64_t precision = interpreter.IntArgument(bound[0], 0);
  const std::string method = bound[1].is(Type::kMissing) ? "common" : ToStr(bound[1]);
  if (method != "common" && method != "ceil" && method != "floor") {
    return interpreter.Fail("method must be common, ceil or floor");
  }
  if (!value.IsNumber()) {
    if (value.IsUndefined()) return interpreter.FailUndefined(value);
    return interpreter.Fail(Cat("type ", TypeName(value), " doesn't define __round__ method"));
  }
  if (!interpreter.ok()) return Value();
  if (method == "common") {
    if (value.is(Type::kFloat)) return Value::Float(RoundHalfEven(value.d, precision));
    if (precision >= 0) return Value::Int(value.AsInt());
    if (precision < -18) return Value::Int(0);
    int64_t scale = 1;
    for (int64_t i = 0; i < -precision; ++i) scale *= 10;
    const int64_t n = value.AsInt();
    const int64_t down = n - ((n % scale) + scale) % scale;
    const int64_t rest = n - down;
    const bool up = rest > scale - rest || (rest == scale - rest && (down / scale) % 2 != 0);
    return Value::Int(up ? down + scale : down);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.AsDouble() * scale;
  if (!std::isfinite(scaled)) return interpreter.Fail("cannot convert float infinity to integer");
  return Value::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value IntFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("int", args, {"default", "base"}, 0, &bound)) return Value();
  const Value fallback = bound[0].is(Type::kMissing) ? Value::Int(0) : bound[0];
  const int64_t base = interpreter.IntArgument(bound[1], 10);
  if (value.IsUndefined()) return interpreter.FailUndefined(value);
  if (value.IsIntegral()) return Value::Int(value.AsInt());
  double number = 0;
  if (value.IsString()) {
    int64_t parsed = 0;
    if ((base == 0 || (base >= 2 && base <= 36)) &&
        ParseInt(Text(value), static_cast<int>(base), &parsed)) {
      return Value::Int(parsed);
    }
    if (!ParseFloat(Text(value), &number)) return fallback;
  } else if (value.is(Type::kFloat)) {
    number = value.d;
    if (std::isinf(number)) return interpreter.Fail("cannot convert float infinity to integer");
  } else {
    return fallback;
  }
  if (!std::isfinite(number)) return fallback;
  if (!(std::fabs(number) < 9.2e18)) return interpreter.Fail("integer outside 64 bits");
  return Value::Int(static_cast<int64_t>(number));
}

Value FloatFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("float", args, {"default"}, 0, &bound)) return Value();
  if (value.IsUndefined()) return interpreter.FailUndefined(value);
  if (value.IsNumber()) return Value::Float(value.AsDouble());
  double number = 0;
  if (value.IsString() && ParseFloat(Text(value), &number)) return Value::Float(number);
  return bound[0].is(Type::kMissing) ? Value::Float(0.0) : bound[0];
}

Value FilesizeFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("filesizeformat", args, {"binary"}, 0, &bound)) return Value();
  double bytes = 0;
  if (value.IsNumber()) {
    bytes = value.AsDouble();
  } else if (!value.IsString() || !ParseFloat(Text(value), &bytes)) {
    return interpreter.Fail("filesizeformat needs a number");
  }
  const bool binary = Truthy(bound[0]);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return interpreter.String(std::string_view("1 Byte"));
  if (bytes < base) return interpreter.String(Cat(static_cast<int64_t>(bytes), " Bytes"));
  static constexpr std::string_view kPrefixes = "kMGTPEZY";
  double unit = base;
  for (size_t i = 0; i < kPrefixes.size(); ++i) {
    unit *= base;
    if (bytes >= unit && i + 1 < kPrefixes.size()) continue;
    std::string prefix(1, kPrefixes[i]);
    if (binary) prefix = (prefix == "k" ? "K" : prefix) + "i";
    return interpreter.String(FixedPoint(base * bytes / unit, 1) + " " + prefix + "B");
  }
  return Value();
}

Value DefaultFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("default", args, {"default_value", "boolean"}, 0, &bound)) return Value();
  if (!value.IsUndefined() && !(Truthy(bound[1]) && !Truthy(value))) return value;
  return bound[0].is(Type::kMissing) ? interpreter.String(std::string_view()) : bound[0];
}

Value AttrFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("attr", args, {"name"}, 1, &bound)) return Value();
  if (!bound[0].IsString()) return interpreter.Fail("attribute name must be string");
  // Unlike the dot, this filter does not look at items.
  bool unsafe = false;
  if (value.is(Type::kDict) && FindMethod(value, Text(bound[0]), &unsafe) == nullptr) {
    return interpreter.Undefined(
        Cat("'dict object' has no attribute ", ReprString(Text(bound[0]))));
  }
  return interpreter.Getattr(value, Text(bound[0]));
}

Value LengthFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("length", args, {}, 0, &bound)) return Value();
  if (value.is(Type::kLoop))
    return Value::Int(static_cast<int64_t>(value.as<LoopObject>()->items.size()));
  const int64_t length = Length(value);
  if (length < 0)
    return interpreter.Fail(Cat("object of type '", TypeName(value), "' has no len()"));
  return Value::Int(length);
}

template <const char* const& name>
Value Refused(Interpreter& interpreter, const Value&, const Args&) {
  return interpreter.Fail(Cat("the filter ", name, " is not supported in chat templates"));
}

constexpr const char* kRandom = "random";
constexpr const char* kUrlize = "urlize";

}  // namespace

FilterFunction FindFilter(std::string_view name) {
  static const auto* table = [] {
    auto* all = new absl::flat_hash_map<std::string_view, FilterFunction>{
        {"abs", AbsFilter},
        {"attr", AttrFilter},
        {"capitalize", TextFilter<Capitalize>},
        {"center", CenterFilter},
        {"count", LengthFilter},
        {"d", DefaultFilter},
        {"default", DefaultFilter},
        {"e", EscapeFilter},
        {"escape", EscapeFilter},
        {"filesizeformat", FilesizeFilter},
        {"float", FloatFilter},
        {"forceescape", ForceEscapeFilter},
        {"format", FormatFilter},
        {"indent", IndentFilter},
        {"int", IntFilter},
        {"length", LengthFilter},
        {"lower", TextFilter<Lower>},
        {"pprint", PprintFilter},
        {"random", Refused<kRandom>},
        {"replace", ReplaceFilter},
        {"round", RoundFilter},
        {"safe", SafeFilter},
        {"string", StringFilter},
        {"striptags", TextFilter<StripTags>},
        {"title", TextFilter<TitleWords>},
        {"tojson", TojsonFilter},
        {"trim", TrimFilter},
        {"truncate", TruncateFilter},
        {"upper", TextFilter<Upper>},
        {"urlencode", UrlencodeFilter},
        {"urlize", Refused<kUrlize>},
        {"wordcount", WordcountFilter},
        {"wordwrap", WordwrapFilter},
        {"xmlattr", XmlattrFilter},
    };
    for (const SequenceFilter& filter : SequenceFilters())
      all->emplace(filter.name, filter.function);
    return all;
  }();
  const auto it = table->find(name);
  return it == table->end() ? nullptr : it->second;
}

bool FilterExists(std::string_view name) { return FindFilter(name) != nullptr; }

}  // namespace finetuned::jinja
