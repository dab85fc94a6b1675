// Methods of str, dict, list, tuple, range, loop and cycler objects, and the global functions.
#include <algorithm>
#include <cmath>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_format.h"
#include "worker/text/jinja_interpreter.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

using Values = std::vector<Value>;
using MethodTable = absl::flat_hash_map<std::string_view, MethodFunction>;

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

bool NeedText(Interpreter& interpreter, std::string_view function, const Value& value) {
  if (value.IsString()) return true;
  if (value.IsUndefined()) {
    interpreter.FailUndefined(value);
  } else {
    interpreter.Fail(Cat(function, "() argument must be str, not ", TypeName(value)));
  }
  return false;
}

bool NoArguments(Interpreter& interpreter, const Args& args) {
  if (args.positional.empty() && args.named.empty()) return true;
  interpreter.Fail(Cat("this method takes no arguments (",
                       args.positional.size() + args.named.size(), " given)"));
  return false;
}

// Python methods in C take their arguments by position only.
bool BindPositional(Interpreter& interpreter, std::string_view function, const Args& args,
                    std::initializer_list<std::string_view> names, size_t required, Values* out) {
  if (!args.named.empty()) {
    interpreter.Fail(Cat(function, "() takes no keyword arguments"));
    return false;
  }
  return interpreter.Bind(function, args, names, required, out);
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

// dict
// ------------------------------------------------------------------------------------------------------------

Values Keys(const Value& dict) {
  Values out;
  for (const auto& item : dict.as<DictObject>()->items) out.push_back(item.first);
  return out;
}

Value KeysMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  return NoArguments(interpreter, args) ? interpreter.View("dict_keys", Keys(self)) : Value();
}

Value ValuesMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  if (!NoArguments(interpreter, args)) return Value();
  Values out;
  for (const auto& item : self.as<DictObject>()->items) out.push_back(item.second);
  return interpreter.View("dict_values", std::move(out));
}

Value ItemsMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  if (!NoArguments(interpreter, args)) return Value();
  Values out;
  for (const auto& [key, value] : self.as<DictObject>()->items)
    out.push_back(interpreter.Tuple({key, value}));
  return interpreter.View("dict_items", std::move(out));
}

Value GetMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "get", args, {"key", "default"}, 1, &bound)) return Value();
  if (!Hashable(bound[0]))
    return interpreter.Fail(Cat("unhashable type: '", TypeName(bound[0]), "'"));
  if (const Value* value = Find(*self.as<DictObject>(), bound[0])) return *value;
  return bound[1].is(Type::kMissing) ? Value::None() : bound[1];
}

Value CopyMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  if (!NoArguments(interpreter, args)) return Value();
  // Values never change, so a copy is the thing itself.
  return self;
}

// list and tuple
// ---------------------------------------------------------------------------------------------------

Value CountItemsMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "count", args, {"value"}, 1, &bound)) return Value();
  const Values items = interpreter.Items(self);
  return Value::Int(std::count_if(items.begin(), items.end(),
                                  [&](const Value& v) { return Equal(v, bound[0]); }));
}

Value IndexMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  Values bound;
  if (!BindPositional(interpreter, "index", args, {"value", "start", "stop"}, 1, &bound))
    return Value();
  const Values items = interpreter.Items(self);
  const auto length = static_cast<int64_t>(items.size());
  int64_t start = interpreter.IntArgument(bound[1], 0);
  int64_t stop = interpreter.IntArgument(bound[2], length);
  if (start < 0) start = std::max<int64_t>(0, start + length);
  if (stop < 0) stop += length;
  for (int64_t i = start; i < std::min(stop, length); ++i) {
    if (Equal(items[static_cast<size_t>(i)], bound[0])) return Value::Int(i);
  }
  return interpreter.Fail(Cat(Repr(bound[0]), " is not in ", TypeName(self)));
}

// loop and cycler
// --------------------------------------------------------------------------------------------------

Value CycleMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  if (!args.named.empty()) return interpreter.Fail("cycle() takes no keyword arguments");
  if (args.positional.empty()) return interpreter.Fail("no items for cycling given");
  const auto index = static_cast<size_t>(self.as<LoopObject>()->index0);
  return args.positional[index % args.positional.size()];
}

Value ChangedMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  if (!args.named.empty()) return interpreter.Fail("changed() takes no keyword arguments");
  auto* loop = self.as<LoopObject>();
  bool same = loop->has_changed_value && loop->changed_value.size() == args.positional.size();
  for (size_t i = 0; same && i < args.positional.size(); ++i)
    same = Equal(loop->changed_value[i], args.positional[i]);
  loop->has_changed_value = true;
  loop->changed_value = args.positional;
  return Value::Bool(!same);
}

Value NextMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  if (!NoArguments(interpreter, args)) return Value();
  auto* cycler = self.as<CyclerObject>();
  const Value value = cycler->items[cycler->position];
  cycler->position = (cycler->position + 1) % cycler->items.size();
  return value;
}

Value ResetMethod(Interpreter& interpreter, const Value& self, const Args& args) {
  if (!NoArguments(interpreter, args)) return Value();
  self.as<CyclerObject>()->position = 0;
  return Value::None();
}

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

const MethodTable& DictMethods() {
  static const auto* table = new MethodTable{{"keys", KeysMethod},
                                             {"values", ValuesMethod},
                                             {"items", ItemsMethod},
                                             {"get", GetMethod},
                                             {"copy", CopyMethod}};
  return *table;
}

const MethodTable& SequenceMethods() {
  static const auto* table = new MethodTable{{"count", CountItemsMethod}, {"index", IndexMethod}};
  return *table;
}

bool IsOneOf(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Globals
// -----------------------------------------------------------------------------------------------------------

Value RangeGlobal(Interpreter& interpreter, const Args& args) {
  if (!args.named.empty()) return interpreter.Fail("range() takes no keyword arguments");
  const Values& given = args.positional;
  if (given.empty() || given.size() > 3) {
    return interpreter.Fail(Cat("range expected 1 to 3 arguments, got ", given.size()));
  }
  Value value = interpreter.Sequence(Type::kRange, {});
  if (!value.is(Type::kRange)) return value;
  auto* range = value.as<SequenceObject>();
  range->start = given.size() == 1 ? 0 : interpreter.IntArgument(given[0], 0);
  range->stop = interpreter.IntArgument(given.size() == 1 ? given[0] : given[1], 0);
  range->step = given.size() == 3 ? interpreter.IntArgument(given[2], 1) : 1;
  if (!interpreter.ok()) return Value();
  if (range->step == 0) return interpreter.Fail("range() arg 3 must not be zero");
  if (RangeLength(*range) > 100000) {
    return interpreter.Fail(
        "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  }
  return value;
}

bool ToPairs(Interpreter& interpreter, const Args& args,
             std::vector<std::pair<Value, Value>>* out) {
  if (args.positional.size() > 1) {
    interpreter.Fail(Cat("dict expected at most 1 argument, got ", args.positional.size()));
    return false;
  }
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is(Type::kDict)) {
      *out = source.as<DictObject>()->items;
    } else {
      for (const Value& item : interpreter.Items(source)) {
        const Values pair = interpreter.Items(item);
        if (interpreter.ok() && pair.size() != 2) {
          interpreter.Fail("dictionary update sequence element must have two items");
        }
        if (!interpreter.ok()) return false;
        if (!Hashable(pair[0])) {
          interpreter.Fail(Cat("unhashable type: '", TypeName(pair[0]), "'"));
          return false;
        }
        out->emplace_back(pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) out->emplace_back(interpreter.String(name), value);
  return interpreter.ok();
}

Value DictGlobal(Interpreter& interpreter, const Args& args) {
  std::vector<std::pair<Value, Value>> pairs;
  if (!ToPairs(interpreter, args, &pairs)) return Value();
  auto* dict = interpreter.arena().New<DictObject>();
  interpreter.arena().Charge(pairs.size() * 2 * sizeof(Value));
  for (const auto& [key, value] : pairs) Insert(dict, key, value);
  return Value::Of(Type::kDict, dict);
}

Value NamespaceGlobal(Interpreter& interpreter, const Args& args) {
  std::vector<std::pair<Value, Value>> pairs;
  if (!ToPairs(interpreter, args, &pairs)) return Value();
  auto* dict = interpreter.arena().New<DictObject>();
  for (const auto& [key, value] : pairs) Insert(dict, key, value);
  auto* object = interpreter.arena().New<NamespaceObject>();
  for (const auto& [key, value] : dict->items) object->attributes.emplace_back(ToStr(key), value);
  return Value::Of(Type::kNamespace, object);
}

Value CyclerGlobal(Interpreter& interpreter, const Args& args) {
  if (args.positional.empty()) return interpreter.Fail("at least one item has to be provided");
  if (!args.named.empty()) return interpreter.Fail("cycler() takes no keyword arguments");
  auto* object = interpreter.arena().New<CyclerObject>();
  object->items = args.positional;
  return Value::Of(Type::kCycler, object);
}

Value JoinerGlobal(Interpreter& interpreter, const Args& args) {
  Values bound;
  if (!interpreter.Bind("joiner", args, {"sep"}, 0, &bound)) return Value();
  auto* object = interpreter.arena().New<JoinerObject>();
  object->separator =
      bound[0].is(Type::kMissing) ? interpreter.String(std::string_view(", ")) : bound[0];
  return Value::Of(Type::kJoiner, object);
}

Value RaiseGlobal(Interpreter& interpreter, const Args& args) {
  Values bound;
  if (!interpreter.Bind("raise_exception", args, {"message"}, 1, &bound)) return Value();
  return interpreter.Fail(ToStr(bound[0]));
}

Value StrftimeGlobal(Interpreter& interpreter, const Args& args) {
  Values bound;
  if (!interpreter.Bind("strftime_now", args, {"format"}, 1, &bound)) return Value();
  if (!NeedText(interpreter, "strftime", bound[0])) return Value();
  const RenderSettings& settings = interpreter.settings();
  return interpreter.String(Strftime(Text(bound[0]), settings.now, settings.zone));
}

Value LipsumGlobal(Interpreter& interpreter, const Args&) {
  return interpreter.Fail("lipsum() is random; a rerun must give equal text");
}

}  // namespace

MethodFunction FindMethod(const Value& self, std::string_view name, bool* unsafe) {
  const auto in = [&](const MethodTable& table) -> MethodFunction {
    const auto it = table.find(name);
    return it == table.end() ? nullptr : it->second;
  };
  switch (self.type) {
    case Type::kString:
      return in(TextMethods());
    case Type::kDict:
      *unsafe = IsOneOf(name, {"clear", "pop", "popitem", "setdefault", "update", "fromkeys"});
      return in(DictMethods());
    case Type::kList:
      *unsafe = IsOneOf(
          name, {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"});
      return name == "copy" ? CopyMethod : in(SequenceMethods());
    case Type::kTuple:
    case Type::kRange:
      return in(SequenceMethods());
    case Type::kLoop:
      return name == "cycle" ? CycleMethod : name == "changed" ? ChangedMethod : nullptr;
    case Type::kCycler:
      return name == "next" ? NextMethod : name == "reset" ? ResetMethod : nullptr;
    default:
      return nullptr;
  }
}

GlobalFunction FindGlobal(std::string_view name) {
  static const auto* table = new absl::flat_hash_map<std::string_view, GlobalFunction>{
      {"range", RangeGlobal},           {"dict", DictGlobal},     {"namespace", NamespaceGlobal},
      {"cycler", CyclerGlobal},         {"joiner", JoinerGlobal}, {"raise_exception", RaiseGlobal},
      {"strftime_now", StrftimeGlobal}, {"lipsum", LipsumGlobal}};
  const auto it = table->find(name);
  return it == table->end() ? nullptr : it->second;
}

}  // namespace finetuned::jinja
