// Evaluation of expressions, node by node; what the operators do is in jinja_operators.cc.
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {

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

}  // namespace finetuned::jinja
