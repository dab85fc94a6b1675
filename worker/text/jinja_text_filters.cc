// Filters of text: case, layout, formatting, HTML and URLs.
#include <algorithm>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_filters.h"
#include "worker/text/jinja_format.h"
#include "worker/text/jinja_html.h"
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

}  // namespace

std::vector<NamedFilter> TextFilters() {
  return {{"capitalize", TextFilter<Capitalize>},
          {"center", CenterFilter},
          {"e", EscapeFilter},
          {"escape", EscapeFilter},
          {"forceescape", ForceEscapeFilter},
          {"format", FormatFilter},
          {"indent", IndentFilter},
          {"lower", TextFilter<Lower>},
          {"replace", ReplaceFilter},
          {"safe", SafeFilter},
          {"string", StringFilter},
          {"striptags", TextFilter<StripTags>},
          {"title", TextFilter<TitleWords>},
          {"trim", TrimFilter},
          {"truncate", TruncateFilter},
          {"upper", TextFilter<Upper>},
          {"urlencode", UrlencodeFilter},
          {"wordcount", WordcountFilter},
          {"wordwrap", WordwrapFilter},
          {"xmlattr", XmlattrFilter}};
}

}  // namespace finetuned::jinja
