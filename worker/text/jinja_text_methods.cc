// Methods of str.
#include <algorithm>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_format.h"
#include "worker/text/jinja_methods.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

using Values = std::vector<Value>;

std::string_view Self(const Value& self) { return Text(self); }

// A string argument; kMissing and (where allowed) None give null.
bool OptionalText(Interpreter& interpreter, std::string_view function, const Value& value,
                  const std::string** out) {
  *out = nullptr;
  if (value.is(Type::kMissing) || value.is(Type::kNone)) return true;
  if (!value.IsString()) {
    if (value.IsUndefined()) {
      interpreter.FailUndefined(value);
    } else {
      interpreter.Fail(Cat(function, " arg must be None or str, not ", TypeName(value)));
    }
    return false;
  }
  *out = &Text(value);
  return true;
}

template <std::string (*function)(std::string_view)>
Value Transform(Interpreter& interpreter, const Value& self, const Args& args) {
  return NoArguments(interpreter, args) ? interpreter.String(function(Self(self))) : Value();
}

template <bool (*function)(std::string_view)>
Value TestText(Interpreter& interpreter, const Value& self, const Args& args) {
  return NoArguments(interpreter, args) ? Value::Bool(function(Self(self))) : Value();
}

template <bool (*function)(char32_t), bool of_empty = false>
bool EveryCharacter(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    if (!function(DecodeUtf8(text, &pos))) return false;
  }
  return of_empty || !text.empty();
}

bool IsIdentifier(std::string_view text) {
  size_t pos = 0;
  if (text.empty() || !IsIdentifierStart(DecodeUtf8(text, &pos))) return false;
  return EveryCharacter<IsIdentifierPart, true>(text.substr(pos));
}

template <bool left, bool right>
Value StripMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  const std::string* chars = nullptr;
  if (!BindPositional(interpreter, "strip", args, {"chars"}, 0, &bound)) return Value();
  if (!OptionalText(interpreter, "strip", bound[0], &chars)) return Value();
  return interpreter.String(Strip(Self(self), chars, left, right));
}

template <bool from_right>
Value SplitMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  const std::string* separator = nullptr;
  if (!interpreter.Bind("split", args, {"sep", "maxsplit"}, 0, &bound)) return Value();
  if (!OptionalText(interpreter, "split", bound[0], &separator)) return Value();
  const int64_t limit = interpreter.IntArgument(bound[1], -1);
  if (separator != nullptr && separator->empty()) return interpreter.Fail("empty separator");
  Values parts;
  for (std::string_view part :
       from_right ? RSplit(Self(self), separator, limit) : Split(Self(self), separator, limit)) {
    if (!interpreter.Step()) return Value();
    parts.push_back(interpreter.String(part));
  }
  return interpreter.List(std::move(parts));
}

Value SplitLinesMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!interpreter.Bind("splitlines", args, {"keepends"}, 0, &bound)) return Value();
  Values lines;
  for (std::string_view line : SplitLines(Self(self), Truthy(bound[0]))) {
    if (!interpreter.Step()) return Value();
    lines.push_back(interpreter.String(line));
  }
  return interpreter.List(std::move(lines));
}

template <bool from_right>
Value PartitionMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "partition", args, {"sep"}, 1, &bound)) return Value();
  if (!NeedText(interpreter, "partition", bound[0])) return Value();
  const std::string_view text = Self(self);
  const std::string& separator = Text(bound[0]);
  if (separator.empty()) return interpreter.Fail("empty separator");
  const size_t at = from_right ? text.rfind(separator) : text.find(separator);
  std::string_view before = text, middle, after;
  if (at == std::string_view::npos) {
    if (from_right) std::swap(before, after);
  } else {
    before = text.substr(0, at);
    middle = separator;
    after = text.substr(at + separator.size());
  }
  return interpreter.Tuple(
      {interpreter.String(before), interpreter.String(middle), interpreter.String(after)});
}

// The byte range that the optional arguments start and end choose; false if it lies outside.
bool Range(Interpreter& interpreter, std::string_view text, const Value& start, const Value& end,
           size_t* begin, size_t* stop) {
  const int64_t length = CodePointCount(text);
  const auto clamp = [&](const Value& value, int64_t absent) {
    if (value.is(Type::kNone)) return absent;
    const int64_t index = interpreter.IntArgument(value, absent);
    return index < 0 ? std::max<int64_t>(0, index + length) : index;
  };
  const int64_t first = clamp(start, 0);
  const int64_t last = std::min(clamp(end, length), length);
  if (!interpreter.ok() || first > last) return false;
  *begin = ByteOffset(text, first);
  *stop = ByteOffset(text, last);
  return true;
}

template <bool at_end>
Value StartsWithMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  const std::string_view name = at_end ? "endswith" : "startswith";
  if (!BindPositional(interpreter, name, args, {"prefix", "start", "end"}, 1, &bound))
    return Value();
  Values options =
      bound[0].is(Type::kTuple) ? bound[0].as<SequenceObject>()->items : Values{bound[0]};
  size_t begin = 0, stop = 0;
  const bool inside = Range(interpreter, Self(self), bound[1], bound[2], &begin, &stop);
  for (const Value& option : options) {
    if (!option.IsString()) {
      return interpreter.Fail(
          Cat(name, " first arg must be str or a tuple of str, not ", TypeName(option)));
    }
    if (!inside) continue;
    const std::string_view text = Self(self).substr(begin, stop - begin);
    const std::string& wanted = Text(option);
    if (text.size() < wanted.size()) continue;
    if (text.substr(at_end ? text.size() - wanted.size() : 0, wanted.size()) == wanted)
      return Value::Bool(true);
  }
  return Value::Bool(false);
}

template <bool from_right, bool must_exist>
Value FindMethodOfText(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "find", args, {"sub", "start", "end"}, 1, &bound))
    return Value();
  if (!NeedText(interpreter, "find", bound[0])) return Value();
  size_t begin = 0, stop = 0;
  if (Range(interpreter, Self(self), bound[1], bound[2], &begin, &stop)) {
    const std::string_view text = Self(self).substr(begin, stop - begin);
    const size_t at = from_right ? text.rfind(Text(bound[0])) : text.find(Text(bound[0]));
    if (at != std::string_view::npos)
      return Value::Int(CodePointCount(Self(self).substr(0, begin + at)));
  }
  return must_exist ? interpreter.Fail("substring not found") : Value::Int(-1);
}

int64_t Occurrences(std::string_view text, std::string_view wanted) {
  if (wanted.empty()) return CodePointCount(text) + 1;
  int64_t count = 0;
  for (size_t at = text.find(wanted); at != std::string_view::npos;
       at = text.find(wanted, at + wanted.size()))
    ++count;
  return count;
}

Value CountMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "count", args, {"sub", "start", "end"}, 1, &bound))
    return Value();
  if (!NeedText(interpreter, "count", bound[0])) return Value();
  size_t begin = 0, stop = 0;
  if (!Range(interpreter, Self(self), bound[1], bound[2], &begin, &stop)) return Value::Int(0);
  return Value::Int(Occurrences(Self(self).substr(begin, stop - begin), Text(bound[0])));
}

Value ReplaceMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "replace", args, {"old", "new", "count"}, 2, &bound))
    return Value();
  if (!NeedText(interpreter, "replace", bound[0]) || !NeedText(interpreter, "replace", bound[1]))
    return Value();
  const int64_t limit = interpreter.IntArgument(bound[2], -1);
  const auto count = static_cast<size_t>(Occurrences(Self(self), Text(bound[0])));
  if (!interpreter.Reserve(Self(self).size()) ||
      !interpreter.Reserve(count * Text(bound[1]).size()))
    return Value();
  return interpreter.String(Replace(Self(self), Text(bound[0]), Text(bound[1]), limit));
}

Value JoinMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "join", args, {"iterable"}, 1, &bound)) return Value();
  std::string out;
  bool first = true;
  for (const Value& item : interpreter.Items(bound[0])) {
    if (!item.IsString()) {
      return interpreter.Fail(
          Cat("sequence item: expected str instance, ", TypeName(item), " found"));
    }
    if (!first) out += Self(self);
    first = false;
    out += Text(item);
    if (!interpreter.Step() || !interpreter.Reserve(out.size())) return Value();
  }
  return interpreter.String(std::move(out));
}

Value FormatMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  return FormatBraces(interpreter, Self(self), args);
}

Value FormatMapMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "format_map", args, {"mapping"}, 1, &bound)) return Value();
  if (!bound[0].is(Type::kDict)) return interpreter.Fail("format_map() argument must be a mapping");
  Args named;
  for (const auto& [key, value] : bound[0].as<DictObject>()->items) {
    if (key.IsString()) named.named.emplace_back(Text(key), value);
  }
  return FormatBraces(interpreter, Self(self), named);
}

template <char align>
Value JustifyMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "ljust", args, {"width", "fillchar"}, 1, &bound)) return Value();
  const std::string* fill = nullptr;
  if (!OptionalText(interpreter, "ljust", bound[1], &fill)) return Value();
  const std::string blank = fill == nullptr ? " " : *fill;
  if (CodePointCount(blank) != 1)
    return interpreter.Fail("The fill character must be exactly one character long");
  const int64_t width = interpreter.IntArgument(bound[0], 0);
  const int64_t length = CodePointCount(Self(self));
  if (width <= length) return interpreter.String(Self(self));
  const int64_t missing = width - length;
  if (!interpreter.Reserve(static_cast<size_t>(missing) * blank.size())) return Value();
  // str.center puts the odd blank left only if both the gap and the width are odd.
  const int64_t left = align == '<'   ? 0
                       : align == '>' ? missing
                                      : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += blank;
  out += Self(self);
  for (int64_t i = left; i < missing; ++i) out += blank;
  return interpreter.String(std::move(out));
}

Value ZfillMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "zfill", args, {"width"}, 1, &bound)) return Value();
  const int64_t missing = interpreter.IntArgument(bound[0], 0) - CodePointCount(Self(self));
  if (missing <= 0) return interpreter.String(Self(self));
  if (!interpreter.Reserve(static_cast<size_t>(missing))) return Value();
  const std::string_view text = Self(self);
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  return interpreter.String(
      Cat(text.substr(0, sign), std::string(static_cast<size_t>(missing), '0'), text.substr(sign)));
}

template <bool prefix>
Value RemoveMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "removeprefix", args, {"affix"}, 1, &bound)) return Value();
  if (!NeedText(interpreter, "removeprefix", bound[0])) return Value();
  std::string_view text = Self(self);
  const std::string_view affix = Text(bound[0]);
  if (text.size() >= affix.size()) {
    const std::string_view end =
        prefix ? text.substr(0, affix.size()) : text.substr(text.size() - affix.size());
    if (end == affix && prefix) text.remove_prefix(affix.size());
    if (end == affix && !prefix) text.remove_suffix(affix.size());
  }
  return interpreter.String(text);
}

Value ExpandTabsMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!interpreter.Bind("expandtabs", args, {"tabsize"}, 0, &bound)) return Value();
  const int64_t size = interpreter.IntArgument(bound[0], 8);
  std::string out;
  int64_t column = 0;
  for (std::string_view c : SplitCodePoints(Self(self))) {
    if (c == "\t") {
      const int64_t blanks = size > 0 ? size - column % size : 0;
      if (!interpreter.Reserve(out.size() + static_cast<size_t>(blanks))) return Value();
      out.append(static_cast<size_t>(blanks), ' ');
      column += blanks;
    } else {
      out += c;
      column = c == "\n" || c == "\r" ? 0 : column + 1;
    }
  }
  return interpreter.String(std::move(out));
}

}  // namespace

const MethodTable& TextMethods() {
  static const auto* table = new MethodTable{
      {"strip", StripMethod<true, true>},
      {"lstrip", StripMethod<true, false>},
      {"rstrip", StripMethod<false, true>},
      {"split", SplitMethod<false>},
      {"rsplit", SplitMethod<true>},
      {"splitlines", SplitLinesMethod},
      {"partition", PartitionMethod<false>},
      {"rpartition", PartitionMethod<true>},
      {"startswith", StartsWithMethod<false>},
      {"endswith", StartsWithMethod<true>},
      {"find", FindMethodOfText<false, false>},
      {"rfind", FindMethodOfText<true, false>},
      {"index", FindMethodOfText<false, true>},
      {"rindex", FindMethodOfText<true, true>},
      {"count", CountMethod},
      {"replace", ReplaceMethod},
      {"join", JoinMethod},
      {"format", FormatMethod},
      {"format_map", FormatMapMethod},
      {"ljust", JustifyMethod<'<'>},
      {"rjust", JustifyMethod<'>'>},
      {"center", JustifyMethod<'^'>},
      {"zfill", ZfillMethod},
      {"removeprefix", RemoveMethod<true>},
      {"removesuffix", RemoveMethod<false>},
      {"expandtabs", ExpandTabsMethod},
      {"upper", Transform<Upper>},
      {"lower", Transform<Lower>},
      {"title", Transform<Title>},
      {"capitalize", Transform<Capitalize>},
      {"swapcase", Transform<SwapCase>},
      {"casefold", Transform<CaseFold>},
      {"isupper", TestText<IsUpper>},
      {"islower", TestText<IsLower>},
      {"istitle", TestText<IsTitle>},
      {"isalpha", TestText<EveryCharacter<IsAlpha>>},
      {"isalnum", TestText<EveryCharacter<IsAlnum>>},
      {"isdigit", TestText<EveryCharacter<IsDigit>>},
      {"isdecimal", TestText<EveryCharacter<IsDecimal>>},
      {"isnumeric", TestText<EveryCharacter<IsNumeric>>},
      {"isspace", TestText<EveryCharacter<IsSpace>>},
      {"isprintable", TestText<EveryCharacter<IsPrintable, true>>},
      {"isascii", TestText<IsAscii>},
      {"isidentifier", TestText<IsIdentifier>},
  };
  return *table;
}

}  // namespace finetuned::jinja
