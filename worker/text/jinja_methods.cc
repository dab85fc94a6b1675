// Methods of dict, list, tuple, range, loop and cycler objects, and the choice by the type of self.
#include "worker/text/jinja_methods.h"

#include <algorithm>

#include "worker/text/jinja_cat.h"

namespace finetuned::jinja {

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

bool BindPositional(Interpreter& interpreter, std::string_view function, const Args& args,
                    std::initializer_list<std::string_view> names, size_t required,
                    std::vector<Value>* out) {
  if (!args.named.empty()) {
    interpreter.Fail(Cat(function, "() takes no keyword arguments"));
    return false;
  }
  return interpreter.Bind(function, args, names, required, out);
}

namespace {

using Values = std::vector<Value>;

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

}  // namespace finetuned::jinja
