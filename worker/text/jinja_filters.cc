// Filters of numbers, of JSON and of any value, and the table of all filters; those of text and of
// sequences are in jinja_text_filters.cc and jinja_sequence_filters.cc.
#include "worker/text/jinja_filters.h"

#include <algorithm>
#include <cmath>

#include "absl/container/flat_hash_map.h"
#include "worker/text/jinja_ast.h"
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_numbers.h"

namespace finetuned::jinja {
namespace {

using Values = std::vector<Value>;

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
  if (style.indented) style.item_separator = ',';
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
        {"abs", AbsFilter},       {"attr", AttrFilter},         {"count", LengthFilter},
        {"d", DefaultFilter},     {"default", DefaultFilter},   {"filesizeformat", FilesizeFilter},
        {"float", FloatFilter},   {"int", IntFilter},           {"length", LengthFilter},
        {"pprint", PprintFilter}, {"random", Refused<kRandom>}, {"round", RoundFilter},
        {"tojson", TojsonFilter}, {"urlize", Refused<kUrlize>},
    };
    for (const std::vector<NamedFilter>& filters : {TextFilters(), SequenceFilters()}) {
      for (const NamedFilter& filter : filters) all->emplace(filter.name, filter.function);
    }
    return all;
  }();
  const auto it = table->find(name);
  return it == table->end() ? nullptr : it->second;
}

bool FilterExists(std::string_view name) { return FindFilter(name) != nullptr; }

}  // namespace finetuned::jinja
