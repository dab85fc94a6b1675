// Statements and the output they write.
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {

void Interpreter::EmitText(std::string_view text) {
  if (!Reserve(text.size())) return;
  output_->text += text;
}

void Interpreter::Emit(const Value& value) {
  if (!value.IsString()) {
    EmitText(ToStr(value));
    return;
  }
  const auto* string = value.as<StringObject>();
  const size_t offset = output_->text.size();
  EmitText(string->text);
  for (Mark mark : string->marks) {
    mark.begin += offset;
    mark.end += offset;
    mark.depth += message_depth_;
    output_->marks.push_back(mark);
  }
}

Interpreter::Flow Interpreter::Exec(const std::vector<StmtPtr>& body, Scope* scope) {
  for (const StmtPtr& stmt : body) {
    position_ = stmt->position;
    if (!Step()) return Flow::kNormal;
    const Flow flow = ExecOne(*stmt, scope);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::ExecOne(const Stmt& stmt, Scope* scope) {
  const Deeper deeper(this);
  if (!status_.ok()) return Flow::kNormal;
  switch (stmt.kind) {
    case StmtKind::kOutput:
      ExecOutput(stmt, scope);
      break;
    case StmtKind::kIf:
      return ExecIf(stmt, scope);
    case StmtKind::kFor:
      ExecFor(stmt, Eval(*stmt.expr, scope), scope, 0);
      break;
    case StmtKind::kSet:
      Assign(*stmt.target, Eval(*stmt.expr, scope), scope);
      break;
    case StmtKind::kSetBlock: {
      Flow flow = Flow::kNormal;
      Value text = Capture([&] { flow = Exec(stmt.body, NewScope(scope)); });
      if (flow != Flow::kNormal) return flow;
      if (stmt.expr != nullptr) text = EvalFilter(*stmt.expr, scope, &text);
      Assign(*stmt.target, text, scope);
      break;
    }
    case StmtKind::kMacro: {
      auto* macro = arena_.New<MacroObject>();
      macro->stmt = &stmt;
      macro->scope = scope;
      for (Scope* s = scope; s != nullptr; s = s->parent) s->captured = true;
      scope->Set(stmt.symbol, Value::Of(Type::kMacro, macro));
      break;
    }
    case StmtKind::kCallBlock:
      ExecCallBlock(stmt, scope);
      break;
    case StmtKind::kFilterBlock: {
      Flow flow = Flow::kNormal;
      const Value text = Capture([&] { flow = Exec(stmt.body, NewScope(scope)); });
      if (flow != Flow::kNormal) return flow;
      Emit(EvalFilter(*stmt.expr, scope, &text));
      break;
    }
    case StmtKind::kWith: {
      Scope* inner = NewScope(scope);
      std::vector<Value> values;
      for (size_t i = 1; i < stmt.exprs.size(); i += 2)
        values.push_back(Eval(*stmt.exprs[i], scope));
      for (size_t i = 0; i < values.size(); ++i) Assign(*stmt.exprs[2 * i], values[i], inner);
      return Exec(stmt.body, inner);
    }
    case StmtKind::kScope:
      if (stmt.expr != nullptr && Evaluate(*stmt.expr, scope))
        Fail("autoescape is not supported: a chat is no HTML");
      return Exec(stmt.body, NewScope(scope));
    case StmtKind::kGeneration:
      ExecGeneration(stmt, scope);
      break;
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
    case StmtKind::kUnsupported:
      Fail(
          Cat("{% ", stmt.name, " %}: a chat template stands alone; there are no other templates"));
      break;
  }
  return Flow::kNormal;
}

void Interpreter::ExecOutput(const Stmt& stmt, Scope* scope) {
  for (const ExprPtr& expr : stmt.exprs) {
    if (expr->kind == ExprKind::kData) {
      EmitText(Text(expr->value));
    } else {
      position_ = expr->position;
      const Value value = Eval(*expr, scope);
      if (!status_.ok()) return;
      Emit(value);
    }
  }
}

Interpreter::Flow Interpreter::ExecIf(const Stmt& stmt, Scope* scope) {
  for (const auto& [test, body] : stmt.branches) {
    const bool taken = Evaluate(*test, scope);
    if (!status_.ok()) return Flow::kNormal;
    if (taken) return Exec(body, scope);
  }
  return Exec(stmt.otherwise, scope);
}

void Interpreter::ExecFor(const Stmt& stmt, const Value& iterable, Scope* scope, int64_t depth0) {
  if (!status_.ok()) return;
  std::vector<Value> items = Items(iterable);
  if (stmt.test != nullptr) {
    std::vector<Value> kept;
    Scope* inner = NewScope(scope);
    for (const Value& item : items) {
      inner->variables.clear();
      Assign(*stmt.target, item, inner);
      if (Evaluate(*stmt.test, inner)) kept.push_back(item);
      if (!status_.ok()) return;
    }
    items = std::move(kept);
  }
  if (items.empty()) {
    Exec(stmt.otherwise, NewScope(scope));
    return;
  }
  auto* loop = arena_.New<LoopObject>();
  loop->items = std::move(items);
  loop->depth0 = depth0;
  loop->scope = scope;
  if (stmt.recursive) loop->recursive = &stmt;
  Scope* inner = nullptr;
  for (size_t i = 0; i < loop->items.size() && Step(); ++i) {
    if (inner == nullptr || inner->captured) inner = NewScope(scope);
    inner->variables.clear();
    loop->index0 = static_cast<int64_t>(i);
    const Value& item = loop->items[i];
    inner->Set(Syntax::kLoop, Value::Of(Type::kLoop, loop));
    Assign(*stmt.target, item, inner);
    const int message = item.is(Type::kDict) ? item.as<DictObject>()->message : -1;
    const size_t begin = output_->text.size();
    const int depth = message_depth_;
    if (message >= 0) ++message_depth_;
    const Flow flow = Exec(stmt.body, inner);
    message_depth_ = depth;
    if (message >= 0 && output_->text.size() > begin) {
      output_->marks.push_back({Mark::kMessage, message, depth, begin, output_->text.size()});
    }
    if (flow == Flow::kBreak) break;
  }
}

void Interpreter::ExecGeneration(const Stmt& stmt, Scope* scope) {
  const size_t begin = output_->text.size();
  Exec(stmt.body, NewScope(scope));
  if (output_->text.size() == begin) return;
  ++generations_;
  output_->marks.push_back({Mark::kGeneration, -1, message_depth_, begin, output_->text.size()});
}

void Interpreter::ExecCallBlock(const Stmt& stmt, Scope* scope) {
  auto* macro = arena_.New<MacroObject>();
  macro->stmt = &stmt;
  macro->scope = scope;
  for (Scope* s = scope; s != nullptr; s = s->parent) s->captured = true;
  const Value caller = Value::Of(Type::kMacro, macro);
  const Value result = EvalCall(*stmt.expr, scope, &caller);
  if (status_.ok()) Emit(result);
}

void Interpreter::Assign(const Expr& target, const Value& value, Scope* scope) {
  if (!status_.ok()) return;
  if (target.kind == ExprKind::kName) {
    scope->Set(target.symbol, value);
    return;
  }
  if (target.kind == ExprKind::kNamespaceRef) {
    const Value object = Lookup(target.symbol, scope);
    if (!object.is(Type::kNamespace)) {
      Fail("cannot assign attribute on non-namespace object");
      return;
    }
    auto& attributes = object.as<NamespaceObject>()->attributes;
    for (auto& [name, existing] : attributes) {
      if (name == target.name) {
        existing = value;
        return;
      }
    }
    arena_.Charge(sizeof(Value) + target.name.size());
    attributes.emplace_back(target.name, value);
    return;
  }
  const std::vector<Value> items = Items(value);
  if (!status_.ok()) return;
  if (items.size() < target.args.size()) {
    Fail(Cat("not enough values to unpack (expected ", target.args.size(), ", got ", items.size(),
             ")"));
  } else if (items.size() > target.args.size()) {
    Fail(Cat("too many values to unpack (expected ", target.args.size(), ")"));
  } else {
    for (size_t i = 0; i < items.size(); ++i) Assign(*target.args[i], items[i], scope);
  }
}

}  // namespace finetuned::jinja
