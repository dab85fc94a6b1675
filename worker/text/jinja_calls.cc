// Calls: arguments and their binding, macros, recursive loops, filters and tests by name.
#include <algorithm>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {

void Interpreter::EvalArguments(const Expr& expr, size_t first, Scope* scope, Args* args) {
  for (size_t i = first; i < expr.args.size(); ++i)
    args->positional.push_back(Eval(*expr.args[i], scope));
  for (const auto& [name, value] : expr.named) args->named.emplace_back(name, Eval(*value, scope));
  if (expr.star_args != nullptr) {
    for (const Value& item : Items(Eval(*expr.star_args, scope))) args->positional.push_back(item);
  }
  if (expr.star_kwargs == nullptr) return;
  const Value extra = Eval(*expr.star_kwargs, scope);
  if (!status_.ok()) return;
  if (!extra.is(Type::kDict)) {
    Fail(Cat("argument after ** must be a mapping, not ", TypeName(extra)));
    return;
  }
  for (const auto& [key, value] : extra.as<DictObject>()->items) {
    if (!key.IsString()) {
      Fail("keywords must be strings");
      return;
    }
    for (const auto& existing : args->named) {
      if (existing.first == Text(key))
        Fail(Cat("got multiple values for keyword argument '", Text(key), "'"));
    }
    args->named.emplace_back(Text(key), value);
  }
}

Value Interpreter::EvalCall(const Expr& expr, Scope* scope, const Value* caller) {
  const Value callee = Eval(*expr.target, scope);
  Args args;
  EvalArguments(expr, 0, scope, &args);
  if (caller != nullptr) args.named.emplace_back("caller", *caller);
  if (!status_.ok()) return Value();
  position_ = expr.position;
  const Value result = Call(callee, std::move(args));
  return result;
}

Value Interpreter::Call(const Value& callee, Args args) {
  if (!Step()) return Value();
  switch (callee.type) {
    case Type::kUndefined:
      return FailUndefined(callee);
    case Type::kFunction:
      return callee.as<FunctionObject>()->function(*this, args);
    case Type::kMethod: {
      const auto* method = callee.as<MethodObject>();
      return method->function(*this, method->self, args);
    }
    case Type::kMacro:
      return CallMacro(*callee.as<MacroObject>(), std::move(args));
    case Type::kLoop:
      return CallLoop(callee.as<LoopObject>(), args);
    case Type::kJoiner: {
      auto* joiner = callee.as<JoinerObject>();
      if (!args.positional.empty() || !args.named.empty()) return Fail("Joiner takes no arguments");
      if (joiner->used) return joiner->separator;
      joiner->used = true;
      return String(std::string_view());
    }
    default:
      return Fail(Cat("'", TypeName(callee), "' object is not callable"));
  }
}

Value Interpreter::CallMacro(const MacroObject& macro, Args args) {
  const Signature& signature = macro.stmt->signature;
  const size_t count = signature.parameters.size();
  if (++call_depth_ > settings_.max_call_depth) {
    --call_depth_;
    return FailLimit(Cat("macro calls nested more than ", settings_.max_call_depth, " deep"));
  }
  Scope* scope = NewScope(macro.scope);
  const auto take_named = [&](const std::string& name) {
    for (size_t i = 0; i < args.named.size(); ++i) {
      if (args.named[i].first != name) continue;
      const Value value = args.named[i].second;
      args.named.erase(args.named.begin() + static_cast<ptrdiff_t>(i));
      return value;
    }
    return Value::Missing();
  };
  const std::string label = signature.anonymous ? "None" : ReprString(signature.name);
  std::vector<Value> given;
  for (size_t i = 0; i < count; ++i) {
    given.push_back(i < args.positional.size() ? args.positional[i]
                                               : take_named(signature.parameters[i].second));
  }
  if (signature.takes_caller && !signature.explicit_caller) {
    Value caller = take_named("caller");
    if (caller.is(Type::kMissing) || caller.is(Type::kNone))
      caller = Undefined("No caller defined");
    scope->Set(Syntax::kCaller, caller);
  }
  if (signature.takes_kwargs) {
    auto* dict = arena_.New<DictObject>();
    for (const auto& [name, value] : args.named) Insert(dict, String(name), value);
    scope->Set(Syntax::kKwargs, Value::Of(Type::kDict, dict));
  } else if (!args.named.empty()) {
    Fail(Cat("macro ", label, " takes no keyword argument ", ReprString(args.named[0].first)));
  }
  if (signature.takes_varargs) {
    std::vector<Value> rest;
    for (size_t i = count; i < args.positional.size(); ++i) rest.push_back(args.positional[i]);
    scope->Set(Syntax::kVarargs, Tuple(std::move(rest)));
  } else if (args.positional.size() > count) {
    Fail(Cat("macro ", label, " takes not more than ", count, " argument(s)"));
  }
  Value result;
  if (status_.ok()) {
    result = Capture([&] {
      const size_t first_default = count - signature.defaults.size();
      for (size_t i = 0; i < count; ++i) {
        const auto& [symbol, name] = signature.parameters[i];
        Value value = given[i];
        if (value.is(Type::kMissing)) {
          value = i >= first_default
                      ? Eval(*signature.defaults[i - first_default], scope)
                      : Undefined(Cat("parameter ", ReprString(name), " was not provided"));
        }
        scope->Set(symbol, value);
      }
      Exec(macro.stmt->body, scope);
    });
  }
  --call_depth_;
  return result;
}

Value Interpreter::CallLoop(LoopObject* loop, const Args& args) {
  if (loop->recursive == nullptr) {
    return Fail("The loop must have the 'recursive' marker to be called recursively.");
  }
  if (args.positional.size() != 1 || !args.named.empty())
    return Fail("loop() takes one argument: what to loop over");
  if (++call_depth_ > settings_.max_call_depth) {
    --call_depth_;
    return FailLimit(Cat("loops nested more than ", settings_.max_call_depth, " deep"));
  }
  const Value result = Capture(
      [&] { ExecFor(*loop->recursive, args.positional[0], loop->scope, loop->depth0 + 1); });
  --call_depth_;
  return result;
}

bool Interpreter::Bind(std::string_view function, const Args& args,
                       std::initializer_list<std::string_view> names, size_t required,
                       std::vector<Value>* out) {
  out->assign(names.size(), Value::Missing());
  if (args.positional.size() > names.size()) {
    Fail(Cat(function, "() takes at most ", names.size(), " arguments (", args.positional.size(),
             " given)"));
    return false;
  }
  std::copy(args.positional.begin(), args.positional.end(), out->begin());
  for (const auto& [name, value] : args.named) {
    const auto it = std::find(names.begin(), names.end(), name);
    if (it == names.end()) {
      Fail(Cat(function, "() got an unexpected keyword argument '", name, "'"));
      return false;
    }
    Value& slot = (*out)[static_cast<size_t>(it - names.begin())];
    if (!slot.is(Type::kMissing)) {
      Fail(Cat(function, "() got multiple values for argument '", name, "'"));
      return false;
    }
    slot = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if ((*out)[i].is(Type::kMissing)) {
      Fail(Cat(function, "() is missing the argument '", *(names.begin() + i), "'"));
      return false;
    }
  }
  return status_.ok();
}

int64_t Interpreter::IntArgument(const Value& value, int64_t fallback) {
  if (value.is(Type::kMissing)) return fallback;
  if (value.IsIntegral()) return value.AsInt();
  if (value.IsUndefined()) {
    FailUndefined(value);
  } else {
    Fail(Cat("'", TypeName(value), "' object cannot be interpreted as an integer"));
  }
  return fallback;
}

Value Interpreter::ApplyFilter(const std::string& name, const Value& subject, const Args& args) {
  const FilterFunction filter = FindFilter(name);
  if (filter == nullptr) return Fail(Cat("No filter named ", ReprString(name)));
  return Step() ? filter(*this, subject, args) : Value();
}

bool Interpreter::ApplyTest(const std::string& name, const Value& subject, const Args& args) {
  const TestFunction test = FindTest(name);
  if (test == nullptr) {
    Fail(Cat("No test named ", ReprString(name)));
    return false;
  }
  return Step() && test(*this, subject, args);
}

}  // namespace finetuned::jinja
