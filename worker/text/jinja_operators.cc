// Operators: arithmetic, concatenation, comparison, "in".
#include <algorithm>
#include <cmath>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_format.h"
#include "worker/text/jinja_html.h"
#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {
namespace {

std::string_view OpText(Op op) {
  static constexpr std::string_view kText[] = {"+",  "-",           "*",  "/",  "//",
                                               "%",  "** or pow()", "==", "!=", "<",
                                               "<=", ">",           ">=", "in", "not in"};
  return kText[static_cast<int>(op)];
}

bool IntPower(int64_t base, int64_t exponent, int64_t* out) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return false;
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) {
      // base² is needed only if a later bit uses it; with exponent > 0 one does.
      return false;
    }
  }
  *out = result;
  return true;
}

// a op b for two numbers with Python's rules.
Value Arithmetic(Interpreter& interpreter, Op op, const Value& a, const Value& b) {
  if (!a.IsIntegral() || !b.IsIntegral() || op == Op::kDiv) {
    const double x = a.AsDouble(), y = b.AsDouble();
    switch (op) {
      case Op::kAdd:
        return Value::Float(x + y);
      case Op::kSub:
        return Value::Float(x - y);
      case Op::kMul:
        return Value::Float(x * y);
      case Op::kDiv:
        return y == 0 ? interpreter.Fail("division by zero") : Value::Float(x / y);
      case Op::kPow: {
        if (x == 0 && y < 0) return interpreter.Fail("0.0 cannot be raised to a negative power");
        if (x < 0 && std::isfinite(y) && y != std::floor(y))
          return interpreter.Fail("complex numbers are not supported");
        const double power = std::pow(x, y);
        if (std::isinf(power) && std::isfinite(x) && std::isfinite(y))
          return interpreter.Fail("Result too large");
        return Value::Float(power);
      }
      default:
        break;
    }
    if (y == 0)
      return interpreter.Fail(op == Op::kMod ? "float modulo" : "float floor division by zero");
    // As CPython: the remainder takes the divisor's sign and the quotient is derived from it.
    double mod = std::fmod(x, y);
    double div = (x - mod) / y;
    if (mod != 0) {
      if ((y < 0) != (mod < 0)) {
        mod += y;
        div -= 1.0;
      }
    } else {
      mod = std::copysign(0.0, y);
    }
    if (op == Op::kMod) return Value::Float(mod);
    if (div == 0) return Value::Float(std::copysign(0.0, x / y));
    double floor_div = std::floor(div);
    if (div - floor_div > 0.5) floor_div += 1.0;
    return Value::Float(floor_div);
  }
  const int64_t x = a.AsInt(), y = b.AsInt();
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Op::kAdd:
      overflow = __builtin_add_overflow(x, y, &result);
      break;
    case Op::kSub:
      overflow = __builtin_sub_overflow(x, y, &result);
      break;
    case Op::kMul:
      overflow = __builtin_mul_overflow(x, y, &result);
      break;
    case Op::kPow:
      if (y < 0) {
        if (x == 0) return interpreter.Fail("0.0 cannot be raised to a negative power");
        return Value::Float(std::pow(static_cast<double>(x), static_cast<double>(y)));
      }
      overflow = !IntPower(x, y, &result);
      break;
    default:
      if (y == 0) return interpreter.Fail("integer division or modulo by zero");
      if (y == -1) {
        if (op == Op::kMod) return Value::Int(0);
        overflow = __builtin_sub_overflow(int64_t{0}, x, &result);
        break;
      }
      result = op == Op::kMod ? x % y : x / y;
      if (x % y != 0 && (x % y < 0) != (y < 0)) result += op == Op::kMod ? y : -1;
  }
  return overflow ? interpreter.Fail("integer outside 64 bits") : Value::Int(result);
}

}  // namespace

Value Interpreter::Negate(const Value& value, bool minus) {
  if (!status_.ok()) return Value();
  if (value.IsUndefined()) return FailUndefined(value);
  if (value.is(Type::kFloat)) return Value::Float(minus ? -value.d : value.d);
  if (!value.IsIntegral()) {
    return Fail(Cat("bad operand type for unary ", minus ? "-" : "+", ": '", TypeName(value), "'"));
  }
  if (minus && value.AsInt() == INT64_MIN) return Fail("integer outside 64 bits");
  return Value::Int(minus ? -value.AsInt() : value.AsInt());
}

Value Interpreter::Concat(const std::vector<Value>& parts) {
  if (!status_.ok()) return Value();
  std::string text;
  std::vector<Mark> marks;
  for (const Value& part : parts) {
    const size_t offset = text.size();
    text += ToStr(part);
    if (!Reserve(text.size())) return Value();
    if (!part.IsString()) continue;
    for (Mark mark : part.as<StringObject>()->marks) {
      mark.begin += offset;
      mark.end += offset;
      marks.push_back(mark);
    }
  }
  const Value value = String(std::move(text));
  if (value.IsString()) value.as<StringObject>()->marks = std::move(marks);
  return value;
}

Value Interpreter::Binary(Op op, const Value& a, const Value& b) {
  if (!status_.ok()) return Value();
  const auto unsupported = [&] {
    if (a.IsUndefined()) return FailUndefined(a);
    if (b.IsUndefined()) return FailUndefined(b);
    return Fail(Cat("unsupported operand type(s) for ", OpText(op), ": '", TypeName(a), "' and '",
                    TypeName(b), "'"));
  };
  if (a.IsNumber() && b.IsNumber()) return Arithmetic(*this, op, a, b);
  if (op == Op::kMod && a.IsString()) return FormatPercent(*this, a, b);
  if (op == Op::kAdd && a.IsString() && b.IsString()) {
    const bool a_markup = a.as<StringObject>()->markup;
    const bool b_markup = b.as<StringObject>()->markup;
    if (!a_markup && !b_markup) return Concat({a, b});
    return Markup((a_markup ? Text(a) : EscapeHtml(Text(a))) +
                  (b_markup ? Text(b) : EscapeHtml(Text(b))));
  }
  if (op == Op::kAdd && a.type == b.type && (a.is(Type::kList) || a.is(Type::kTuple))) {
    std::vector<Value> items = a.as<SequenceObject>()->items;
    const auto& more = b.as<SequenceObject>()->items;
    if (!Reserve((items.size() + more.size()) * sizeof(Value))) return Value();
    items.insert(items.end(), more.begin(), more.end());
    return Sequence(a.type, std::move(items));
  }
  if (op == Op::kMul && (a.IsIntegral() || b.IsIntegral())) {
    const Value& sequence = a.IsIntegral() ? b : a;
    const auto count = static_cast<size_t>(std::max<int64_t>(0, (a.IsIntegral() ? a : b).AsInt()));
    size_t bytes = 0;
    if (sequence.IsString()) {
      if (__builtin_mul_overflow(count, Text(sequence).size(), &bytes) || !Reserve(bytes)) {
        return FailLimit("a repeated string is too long");
      }
      std::string text;
      text.reserve(bytes);
      for (size_t i = 0; i < count && !Text(sequence).empty(); ++i) text += Text(sequence);
      return sequence.as<StringObject>()->markup ? Markup(std::move(text))
                                                 : String(std::move(text));
    }
    if (sequence.is(Type::kList) || sequence.is(Type::kTuple)) {
      const auto& items = sequence.as<SequenceObject>()->items;
      if (__builtin_mul_overflow(count, items.size() * sizeof(Value), &bytes) || !Reserve(bytes)) {
        return FailLimit("a repeated list is too long");
      }
      std::vector<Value> out;
      out.reserve(count * items.size());
      for (size_t i = 0; i < count && !items.empty(); ++i)
        out.insert(out.end(), items.begin(), items.end());
      return Sequence(sequence.type, std::move(out));
    }
  }
  return unsupported();
}

bool Interpreter::Compare(Op op, const Value& a, const Value& b) {
  switch (op) {
    case Op::kEq:
      return Equal(a, b);
    case Op::kNe:
      return !Equal(a, b);
    case Op::kLt:
      return Less(a, b, "<");
    case Op::kGt:
      return Less(b, a, ">");
    case Op::kLe:
    case Op::kGe: {
      if (a.IsNumber() && b.IsNumber() && (std::isnan(a.AsDouble()) || std::isnan(b.AsDouble())))
        return false;
      const bool greater = op == Op::kLe ? Less(b, a, "<=") : Less(a, b, ">=");
      return ok() && !greater;
    }
    case Op::kIn:
      return Contains(b, a);
    case Op::kNotIn: {
      const bool contains = Contains(b, a);
      return ok() && !contains;
    }
    default:
      return false;
  }
}

bool Interpreter::Less(const Value& a, const Value& b, std::string_view op, int depth) {
  if (!Step() || depth > 200) return false;
  if (a.IsNumber() && b.IsNumber()) {
    if (a.IsIntegral() && b.IsIntegral()) return a.AsInt() < b.AsInt();
    return a.AsDouble() < b.AsDouble();
  }
  if (a.IsUndefined() || b.IsUndefined()) {
    FailUndefined(a.IsUndefined() ? a : b);
    return false;
  }
  // UTF-8 sorts bytewise as its code points do.
  if (a.IsString() && b.IsString()) return Text(a) < Text(b);
  if (a.type == b.type && (a.is(Type::kList) || a.is(Type::kTuple))) {
    const auto& x = a.as<SequenceObject>()->items;
    const auto& y = b.as<SequenceObject>()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!Equal(x[i], y[i])) return Less(x[i], y[i], op, depth + 1);
    }
    return x.size() < y.size();
  }
  Fail(Cat("'", op, "' not supported between instances of '", TypeName(a), "' and '", TypeName(b),
           "'"));
  return false;
}

bool Interpreter::Contains(const Value& container, const Value& item) {
  if (!status_.ok()) return false;
  switch (container.type) {
    case Type::kString:
      if (!item.IsString()) {
        Fail(Cat("'in <string>' requires string as left operand, not ", TypeName(item)));
        return false;
      }
      return Text(container).find(Text(item)) != std::string::npos;
    case Type::kDict:
      if (!Hashable(item)) {
        Fail(Cat("unhashable type: '", TypeName(item), "'"));
        return false;
      }
      return Find(*container.as<DictObject>(), item) != nullptr;
    default: {
      if (!IsIterable(container)) {
        Fail(Cat("argument of type '", TypeName(container), "' is not iterable"));
        return false;
      }
      const std::vector<Value> items = Items(container);
      Step(static_cast<int64_t>(items.size()));
      return std::any_of(items.begin(), items.end(),
                         [&](const Value& value) { return Equal(value, item); });
    }
  }
}

}  // namespace finetuned::jinja
