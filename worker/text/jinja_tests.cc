// Tests: what may stand after "is", and in select, reject, selectattr and rejectattr.
#include <cmath>

#include "absl/container/flat_hash_map.h"
#include "worker/text/jinja_ast.h"
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_interpreter.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

bool NoArguments(Interpreter& interpreter, const Args& args) {
  if (args.positional.empty() && args.named.empty()) return true;
  interpreter.Fail("this test takes no argument");
  return false;
}

bool OneArgument(Interpreter& interpreter, const Args& args, Value* out) {
  if (args.positional.size() != 1 || !args.named.empty()) {
    interpreter.Fail("this test takes one argument");
    return false;
  }
  *out = args.positional[0];
  return true;
}

template <bool (*predicate)(Interpreter&, const Value&)>
bool Unary(Interpreter& interpreter, const Value& value, const Args& args) {
  return NoArguments(interpreter, args) && predicate(interpreter, value);
}

template <Op op>
bool Comparison(Interpreter& interpreter, const Value& value, const Args& args) {
  Value other;
  return OneArgument(interpreter, args, &other) && interpreter.Compare(op, value, other);
}

bool RemainderIs(Interpreter& interpreter, const Value& value, const Value& divisor,
                 int64_t remainder) {
  const Value result = interpreter.Binary(Op::kMod, value, divisor);
  return interpreter.ok() && Equal(result, Value::Int(remainder));
}

bool DivisibleBy(Interpreter& interpreter, const Value& value, const Args& args) {
  Value divisor;
  return OneArgument(interpreter, args, &divisor) && RemainderIs(interpreter, value, divisor, 0);
}

bool Same(Interpreter& interpreter, const Value& value, const Args& args) {
  Value other;
  if (!OneArgument(interpreter, args, &other) || value.type != other.type) return false;
  switch (value.type) {
    case Type::kUndefined:
    case Type::kString:
    case Type::kList:
    case Type::kTuple:
    case Type::kDict:
      return value.object == other.object;
    default:
      return Equal(value,
                   other);  // small integers, True, False and None are single objects in Python
  }
}

bool IsDefined(Interpreter&, const Value& v) { return !v.IsUndefined(); }
bool IsUndefinedValue(Interpreter&, const Value& v) { return v.IsUndefined(); }
bool IsNone(Interpreter&, const Value& v) { return v.is(Type::kNone); }
bool IsBoolean(Interpreter&, const Value& v) { return v.is(Type::kBool); }
bool IsTrue(Interpreter&, const Value& v) { return v.is(Type::kBool) && v.b; }
bool IsFalse(Interpreter&, const Value& v) { return v.is(Type::kBool) && !v.b; }
bool IsInteger(Interpreter&, const Value& v) { return v.is(Type::kInt); }
bool IsFloat(Interpreter&, const Value& v) { return v.is(Type::kFloat); }
bool IsNumberValue(Interpreter&, const Value& v) { return v.IsNumber(); }
bool IsText(Interpreter&, const Value& v) { return v.IsString(); }
bool IsMapping(Interpreter&, const Value& v) { return v.is(Type::kDict); }
bool IsIterableValue(Interpreter& interpreter, const Value& v) { return interpreter.IsIterable(v); }
bool IsSequence(Interpreter&, const Value& v) {
  // Python asks for len() and an attribute __getitem__; Undefined refuses the latter only when
  // called.
  return v.IsString() || v.is(Type::kList) || v.is(Type::kTuple) || v.is(Type::kDict) ||
         v.is(Type::kRange) || v.IsUndefined();
}
bool IsCallable(Interpreter&, const Value& v) {
  return v.is(Type::kMacro) || v.is(Type::kFunction) || v.is(Type::kMethod) || v.is(Type::kLoop) ||
         v.is(Type::kJoiner) || v.IsUndefined();
}
bool IsLowerText(Interpreter&, const Value& v) { return IsLower(ToStr(v)); }
bool IsUpperText(Interpreter&, const Value& v) { return IsUpper(ToStr(v)); }
bool IsEscaped(Interpreter&, const Value& v) {
  return v.IsString() && v.as<StringObject>()->markup;
}
bool IsOdd(Interpreter& interpreter, const Value& v) {
  return RemainderIs(interpreter, v, Value::Int(2), 1);
}
bool IsEven(Interpreter& interpreter, const Value& v) {
  return RemainderIs(interpreter, v, Value::Int(2), 0);
}
bool NamesFilter(Interpreter& interpreter, const Value& v) {
  if (!Hashable(v)) interpreter.Fail(Cat("unhashable type: '", TypeName(v), "'"));
  return v.IsString() && FilterExists(Text(v));
}
bool NamesTest(Interpreter& interpreter, const Value& v) {
  if (!Hashable(v)) interpreter.Fail(Cat("unhashable type: '", TypeName(v), "'"));
  return v.IsString() && TestExists(Text(v));
}

}  // namespace

TestFunction FindTest(std::string_view name) {
  static const auto* table = new absl::flat_hash_map<std::string_view, TestFunction>{
      {"defined", Unary<IsDefined>},
      {"undefined", Unary<IsUndefinedValue>},
      {"none", Unary<IsNone>},
      {"boolean", Unary<IsBoolean>},
      {"true", Unary<IsTrue>},
      {"false", Unary<IsFalse>},
      {"integer", Unary<IsInteger>},
      {"float", Unary<IsFloat>},
      {"number", Unary<IsNumberValue>},
      {"string", Unary<IsText>},
      {"mapping", Unary<IsMapping>},
      {"iterable", Unary<IsIterableValue>},
      {"sequence", Unary<IsSequence>},
      {"callable", Unary<IsCallable>},
      {"lower", Unary<IsLowerText>},
      {"upper", Unary<IsUpperText>},
      {"escaped", Unary<IsEscaped>},
      {"odd", Unary<IsOdd>},
      {"even", Unary<IsEven>},
      {"filter", Unary<NamesFilter>},
      {"test", Unary<NamesTest>},
      {"divisibleby", DivisibleBy},
      {"sameas", Same},
      {"in", Comparison<Op::kIn>},
      {"==", Comparison<Op::kEq>},
      {"eq", Comparison<Op::kEq>},
      {"equalto", Comparison<Op::kEq>},
      {"!=", Comparison<Op::kNe>},
      {"ne", Comparison<Op::kNe>},
      {"<", Comparison<Op::kLt>},
      {"lt", Comparison<Op::kLt>},
      {"lessthan", Comparison<Op::kLt>},
      {"<=", Comparison<Op::kLe>},
      {"le", Comparison<Op::kLe>},
      {">", Comparison<Op::kGt>},
      {"gt", Comparison<Op::kGt>},
      {"greaterthan", Comparison<Op::kGt>},
      {">=", Comparison<Op::kGe>},
      {"ge", Comparison<Op::kGe>},
  };
  const auto it = table->find(name);
  return it == table->end() ? nullptr : it->second;
}

bool TestExists(std::string_view name) { return FindTest(name) != nullptr; }

}  // namespace finetuned::jinja
