// Expressions: operators, attribute and item access, slices, iteration.
#include <algorithm>
#include <cmath>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_format.h"
#include "worker/text/jinja_html.h"
#include "worker/text/jinja_interpreter.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

std::string_view OpText(Op op) {
  static constexpr std::string_view kText[] = {"+",  "-",           "*",  "/",  "//",
                                               "%",  "** or pow()", "==", "!=", "<",
                                               "<=", ">",           ">=", "in", "not in"};
  return kText[static_cast<int>(op)];
}

// The object as Undefined's messages name it: "dict object", "None".
std::string ObjectName(const Value& value) {
  return value.is(Type::kNone) ? "None" : Cat(TypeName(value), " object");
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

Value Interpreter::Eval(const Expr& expr, Scope* scope) {
  const Deeper deeper(this);
  if (!Step()) return Value();
  switch (expr.kind) {
    case ExprKind::kConst:
    case ExprKind::kData:
      return expr.value;
    case ExprKind::kName:
      position_ = expr.position;
      return Lookup(expr.symbol, scope);
    case ExprKind::kNamespaceRef:
      return Value();
    case ExprKind::kTuple:
    case ExprKind::kList: {
      std::vector<Value> items;
      items.reserve(expr.args.size());
      for (const ExprPtr& arg : expr.args) items.push_back(Eval(*arg, scope));
      return Sequence(expr.kind == ExprKind::kTuple ? Type::kTuple : Type::kList, std::move(items));
    }
    case ExprKind::kDict: {
      auto* dict = arena_.New<DictObject>();
      for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
        const Value key = Eval(*expr.args[i], scope);
        const Value value = Eval(*expr.args[i + 1], scope);
        if (!Hashable(key)) return Fail(Cat("unhashable type: '", TypeName(key), "'"));
        arena_.Charge(2 * sizeof(Value));
        Insert(dict, key, value);
      }
      return Value::Of(Type::kDict, dict);
    }
    case ExprKind::kNegate:
    case ExprKind::kPositive: {
      const Value value = Eval(*expr.args[0], scope);
      position_ = expr.position;
      return Negate(value, expr.kind == ExprKind::kNegate);
    }
    case ExprKind::kNot:
      return Value::Bool(!Evaluate(*expr.args[0], scope));
    case ExprKind::kAnd: {
      const Value left = Eval(*expr.args[0], scope);
      return Truthy(left) ? Eval(*expr.args[1], scope) : left;
    }
    case ExprKind::kOr: {
      const Value left = Eval(*expr.args[0], scope);
      return Truthy(left) ? left : Eval(*expr.args[1], scope);
    }
    case ExprKind::kBinary: {
      const Value left = Eval(*expr.args[0], scope);
      const Value right = Eval(*expr.args[1], scope);
      if (!status_.ok()) return Value();
      position_ = expr.position;
      return Binary(expr.op, left, right);
    }
    case ExprKind::kConcat: {
      std::vector<Value> parts;
      for (const ExprPtr& arg : expr.args) parts.push_back(Eval(*arg, scope));
      return Concat(parts);
    }
    case ExprKind::kCompare: {
      Value left = Eval(*expr.args[0], scope);
      for (size_t i = 0; i < expr.ops.size(); ++i) {
        const Value right = Eval(*expr.args[i + 1], scope);
        if (!status_.ok()) return Value();
        position_ = expr.position;
        if (!Compare(expr.ops[i], left, right)) return Value::Bool(false);
        left = right;
      }
      return Value::Bool(true);
    }
    case ExprKind::kCondition: {
      if (Evaluate(*expr.args[0], scope)) return Eval(*expr.args[1], scope);
      if (expr.args[2] != nullptr) return Eval(*expr.args[2], scope);
      return Undefined(Cat("the inline if-expression on line ", expr.position.line,
                           " evaluated to false and no else section was defined."));
    }
    case ExprKind::kGetattr: {
      const Value object = Eval(*expr.target, scope);
      if (!status_.ok()) return Value();
      position_ = expr.position;
      return Getattr(object, expr.name);
    }
    case ExprKind::kGetitem: {
      const Value object = Eval(*expr.target, scope);
      const Expr& key = *expr.args[0];
      if (key.kind == ExprKind::kSlice) {
        const auto part = [&](int i) {
          return key.args[i] == nullptr ? Value::None() : Eval(*key.args[i], scope);
        };
        const Value start = part(0), stop = part(1), step = part(2);
        if (!status_.ok()) return Value();
        position_ = expr.position;
        return Slice(object, start, stop, step);
      }
      const Value index = Eval(key, scope);
      if (!status_.ok()) return Value();
      position_ = expr.position;
      return Getitem(object, index);
    }
    case ExprKind::kSlice:
      return Fail("a tuple of slices is no index of anything here");
    case ExprKind::kCall:
      return EvalCall(expr, scope, nullptr);
    case ExprKind::kFilter:
      return EvalFilter(expr, scope, nullptr);
    case ExprKind::kTest: {
      const Value subject = Eval(*expr.args[0], scope);
      Args args;
      EvalArguments(expr, 1, scope, &args);
      if (!status_.ok()) return Value();
      position_ = expr.position;
      return Value::Bool(ApplyTest(expr.name, subject, args));
    }
  }
  return Value();
}

Value Interpreter::EvalFilter(const Expr& expr, Scope* scope, const Value* block) {
  // In a filter block or a set block the innermost filter has no subject: the block's text is.
  Value subject;
  if (expr.args[0] == nullptr) {
    if (block != nullptr) subject = *block;
  } else if (expr.args[0]->kind == ExprKind::kFilter && block != nullptr) {
    subject = EvalFilter(*expr.args[0], scope, block);
  } else {
    subject = Eval(*expr.args[0], scope);
  }
  Args args;
  EvalArguments(expr, 1, scope, &args);
  if (!status_.ok()) return Value();
  position_ = expr.position;
  return ApplyFilter(expr.name, subject, args);
}

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

bool Interpreter::IsIterable(const Value& value) const {
  switch (value.type) {
    case Type::kUndefined:
    case Type::kString:
    case Type::kList:
    case Type::kTuple:
    case Type::kDict:
    case Type::kView:
    case Type::kRange:
    case Type::kGenerator:
    case Type::kLoop:
      return true;
    default:
      return false;
  }
}

std::vector<Value> Interpreter::Items(const Value& value) {
  std::vector<Value> out;
  if (!status_.ok()) return out;
  switch (value.type) {
    case Type::kUndefined:
      return out;
    case Type::kString:
      for (std::string_view c : SplitCodePoints(Text(value))) {
        if (!Step()) return out;
        out.push_back(String(c));
      }
      return out;
    case Type::kList:
    case Type::kTuple:
    case Type::kView:
      return value.as<SequenceObject>()->items;
    case Type::kDict:
      for (const auto& [key, item] : value.as<DictObject>()->items) out.push_back(key);
      return out;
    case Type::kRange: {
      const auto* range = value.as<SequenceObject>();
      const int64_t length = RangeLength(*range);
      for (int64_t i = 0; i < length && Step(); ++i)
        out.push_back(Value::Int(range->start + i * range->step));
      return out;
    }
    case Type::kGenerator: {
      auto* generator = value.as<SequenceObject>();
      if (generator->pending != nullptr) {
        const auto compute = std::exchange(generator->pending, nullptr);
        compute(&generator->items);
      }
      return std::exchange(generator->items, {});
    }
    default:
      Fail(Cat("'", TypeName(value), "' object is not iterable"));
      return out;
  }
}

Value Interpreter::LoopAttribute(LoopObject* loop, const std::string& name) {
  const auto length = static_cast<int64_t>(loop->items.size());
  const int64_t index0 = loop->index0;
  if (name == "index") return Value::Int(index0 + 1);
  if (name == "index0") return Value::Int(index0);
  if (name == "revindex") return Value::Int(length - index0);
  if (name == "revindex0") return Value::Int(length - index0 - 1);
  if (name == "first") return Value::Bool(index0 == 0);
  if (name == "last") return Value::Bool(index0 + 1 == length);
  if (name == "length") return Value::Int(length);
  if (name == "depth") return Value::Int(loop->depth0 + 1);
  if (name == "depth0") return Value::Int(loop->depth0);
  if (name == "previtem") {
    return index0 == 0 ? Undefined("there is no previous item")
                       : loop->items[static_cast<size_t>(index0 - 1)];
  }
  if (name == "nextitem") {
    return index0 + 1 == length ? Undefined("there is no next item")
                                : loop->items[static_cast<size_t>(index0 + 1)];
  }
  return Value::Missing();
}

Value Interpreter::Getattr(const Value& object, const std::string& name) {
  if (!status_.ok()) return Value();
  const auto missing = [&] {
    return Undefined(Cat(ReprString(ObjectName(object)), " has no attribute ", ReprString(name)));
  };
  if (object.IsUndefined()) return FailUndefined(object);
  bool unsafe = false;
  if (const MethodFunction method = FindMethod(object, name, &unsafe)) {
    auto* bound = arena_.New<MethodObject>();
    bound->self = object;
    bound->name = name;
    bound->function = method;
    return Value::Of(Type::kMethod, bound);
  }
  if (unsafe) {
    return Undefined(Cat("access to attribute ", ReprString(name), " of '", TypeName(object),
                         "' object is unsafe."));
  }
  switch (object.type) {
    case Type::kDict: {
      const Value* item = Find(*object.as<DictObject>(), std::string_view(name));
      return item == nullptr ? missing() : *item;
    }
    case Type::kNamespace:
      for (const auto& [attribute, value] : object.as<NamespaceObject>()->attributes) {
        if (attribute == name) return value;
      }
      return missing();
    case Type::kLoop: {
      const Value value = LoopAttribute(object.as<LoopObject>(), name);
      return value.is(Type::kMissing) ? missing() : value;
    }
    case Type::kTuple: {
      const auto* tuple = object.as<SequenceObject>();
      if (tuple->group && (name == "grouper" || name == "list"))
        return tuple->items[name == "list"];
      return missing();
    }
    case Type::kCycler: {
      const auto* cycler = object.as<CyclerObject>();
      if (name == "current") return cycler->items[cycler->position];
      if (name == "items") return Tuple(cycler->items);
      if (name == "pos") return Value::Int(static_cast<int64_t>(cycler->position));
      return missing();
    }
    case Type::kMacro: {
      const Signature& signature = object.as<MacroObject>()->stmt->signature;
      if (name == "name") return signature.anonymous ? Value::None() : String(signature.name);
      if (name == "catch_kwargs") return Value::Bool(signature.takes_kwargs);
      if (name == "catch_varargs") return Value::Bool(signature.takes_varargs);
      if (name == "caller") return Value::Bool(signature.takes_caller);
      if (name != "arguments") return missing();
      std::vector<Value> names;
      for (const auto& parameter : signature.parameters) names.push_back(String(parameter.second));
      return Tuple(std::move(names));
    }
    default:
      return missing();
  }
}

Value Interpreter::Getitem(const Value& object, const Value& key) {
  if (!status_.ok()) return Value();
  if (object.IsUndefined()) return FailUndefined(object);
  if (object.is(Type::kDict) && Hashable(key)) {
    if (const Value* item = Find(*object.as<DictObject>(), key)) return *item;
  } else if (key.IsIntegral()) {
    const int64_t length = object.IsString() && key.AsInt() >= 0 ? INT64_MAX : Length(object);
    const int64_t index = key.AsInt() < 0 ? key.AsInt() + length : key.AsInt();
    const bool inside = index >= 0 && index < length;
    if (object.IsString() && inside) {
      const size_t begin = ByteOffset(Text(object), index);
      if (begin < Text(object).size()) {
        size_t end = begin;
        DecodeUtf8(Text(object), &end);
        return String(std::string_view(Text(object)).substr(begin, end - begin));
      }
    } else if ((object.is(Type::kList) || object.is(Type::kTuple)) && inside) {
      return object.as<SequenceObject>()->items[static_cast<size_t>(index)];
    } else if (object.is(Type::kRange) && inside) {
      const auto* range = object.as<SequenceObject>();
      return Value::Int(range->start + index * range->step);
    }
  }
  // As the sandbox does it: what is no item may be an attribute.
  if (key.IsString()) return Getattr(object, Text(key));
  return Undefined(Cat(ObjectName(object), " has no element ", Repr(key)));
}

Value Interpreter::Slice(const Value& object, const Value& start, const Value& stop,
                         const Value& step) {
  const bool sliceable = object.IsString() || object.is(Type::kList) || object.is(Type::kTuple) ||
                         object.is(Type::kRange);
  if (object.IsUndefined()) return FailUndefined(object);
  const auto bound = [](const Value& value) { return value.is(Type::kNone) || value.IsIntegral(); };
  if (!sliceable) return Fail(Cat("'", TypeName(object), "' object is not subscriptable"));
  if (!bound(start) || !bound(stop) || !bound(step))
    return Fail("slice indices must be integers or None");
  const int64_t stride = step.is(Type::kNone) ? 1 : step.AsInt();
  if (stride == 0) return Fail("slice step cannot be zero");
  const int64_t length = Length(object);
  const auto clamp = [&](const Value& value, int64_t absent) {
    if (value.is(Type::kNone)) return absent;
    int64_t index = value.AsInt();
    if (index < 0) index = std::max<int64_t>(index + length, stride < 0 ? -1 : 0);
    return std::min(index, stride < 0 ? length - 1 : length);
  };
  const int64_t first = clamp(start, stride > 0 ? 0 : length - 1);
  const int64_t last = clamp(stop, stride > 0 ? length : -1);
  if (object.IsString() && stride == 1) {
    const std::string_view text = Text(object);
    if (first >= last) return String(std::string_view());
    const size_t begin = ByteOffset(text, first);
    const size_t bytes = ByteOffset(text.substr(begin), last - first);
    return String(text.substr(begin, bytes));
  }
  if (object.is(Type::kRange)) {
    const auto* range = object.as<SequenceObject>();
    auto* part = arena_.New<SequenceObject>();
    part->start = range->start + first * range->step;
    part->stop = range->start + last * range->step;
    if (__builtin_mul_overflow(range->step, stride, &part->step))
      return Fail("integer outside 64 bits");
    return Value::Of(Type::kRange, part);
  }
  std::vector<int64_t> picked;
  for (int64_t i = first; stride > 0 ? i < last : i > last;) {
    if (!Step()) return Value();
    picked.push_back(i);
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  if (object.IsString()) {
    const std::vector<std::string_view> characters = SplitCodePoints(Text(object));
    std::string out;
    for (int64_t i : picked) out += characters[static_cast<size_t>(i)];
    return String(std::move(out));
  }
  std::vector<Value> out;
  const auto* sequence = object.as<SequenceObject>();
  for (int64_t i : picked) out.push_back(sequence->items[static_cast<size_t>(i)]);
  return Sequence(object.is(Type::kTuple) ? Type::kTuple : Type::kList, std::move(out));
}

}  // namespace finetuned::jinja
