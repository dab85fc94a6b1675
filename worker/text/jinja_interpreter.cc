// Statements, calls and names; operators are in jinja_operators.cc.
#include "worker/text/jinja_interpreter.h"

#include <algorithm>

#include "worker/text/jinja_cat.h"

namespace finetuned::jinja {

Interpreter::Interpreter(const Syntax& syntax, const RenderSettings& settings)
    : syntax_(syntax), settings_(settings), steps_left_(settings.max_steps) {}

Value Interpreter::Fail(std::string_view message) {
  if (status_.ok()) status_ = ErrorAt(syntax_.name, position_, message);
  return Value();
}

Value Interpreter::FailLimit(std::string_view message) {
  if (status_.ok()) {
    status_ = absl::ResourceExhaustedError(ErrorAt(syntax_.name, position_, message).message());
  }
  return Value();
}

Value Interpreter::FailUndefined(const Value& undefined) {
  const auto* object = undefined.as<UndefinedObject>();
  return Fail(object == nullptr ? "a value is undefined" : object->message);
}

bool Interpreter::Step(int64_t count) {
  steps_left_ -= count;
  if (steps_left_ < 0 || !EqualityWorkLeft())
    FailLimit(Cat("more than ", settings_.max_steps, " steps: the template does not end"));
  return status_.ok();
}

bool Interpreter::Reserve(size_t bytes) {
  const size_t used = arena_.bytes() + outer_bytes_ + output_->text.size();
  if (bytes > settings_.max_memory_bytes || used > settings_.max_memory_bytes - bytes) {
    FailLimit(Cat("more than ", settings_.max_memory_bytes >> 20, " MiB of text and values"));
  }
  return status_.ok();
}

Value Interpreter::String(std::string text) {
  if (!Reserve(text.size())) return Value();
  return arena_.String(std::move(text));
}

Value Interpreter::Markup(std::string text) {
  Value value = String(std::move(text));
  if (value.IsString()) value.as<StringObject>()->markup = true;
  return value;
}

Value Interpreter::Sequence(Type type, std::vector<Value> items) {
  if (!Reserve(items.size() * sizeof(Value))) return Value();
  arena_.Charge(items.size() * sizeof(Value));
  auto* object = arena_.New<SequenceObject>();
  object->items = std::move(items);
  return Value::Of(type, object);
}

Value Interpreter::View(std::string_view kind, std::vector<Value> items) {
  Value view = Sequence(Type::kView, std::move(items));
  if (view.is(Type::kView)) view.as<SequenceObject>()->view = kind;
  return view;
}

Value Interpreter::Generator(std::function<void(std::vector<Value>*)> compute) {
  auto* object = arena_.New<SequenceObject>();
  object->pending = std::move(compute);
  return Value::Of(Type::kGenerator, object);
}

Value Interpreter::Undefined(std::string message) {
  auto* object = arena_.New<UndefinedObject>();
  object->message = std::move(message);
  return Value::Of(Type::kUndefined, object);
}

Value Interpreter::FromJson(const nlohmann::ordered_json& json, int depth) {
  if (depth > 200) return Fail("a variable is nested more than 200 levels deep");
  switch (json.type()) {
    case nlohmann::ordered_json::value_t::boolean:
      return Value::Bool(json.get<bool>());
    case nlohmann::ordered_json::value_t::number_integer:
      return Value::Int(json.get<int64_t>());
    case nlohmann::ordered_json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        return Fail("an integer variable exceeds 64 bits");
      return Value::Int(json.get<int64_t>());
    case nlohmann::ordered_json::value_t::number_float:
      return Value::Float(json.get<double>());
    case nlohmann::ordered_json::value_t::string:
      return String(json.get_ref<const std::string&>());
    case nlohmann::ordered_json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(FromJson(item, depth + 1));
      return List(std::move(items));
    }
    case nlohmann::ordered_json::value_t::object: {
      auto* dict = arena_.New<DictObject>();
      for (const auto& [key, item] : json.items())
        Insert(dict, String(key), FromJson(item, depth + 1));
      return Value::Of(Type::kDict, dict);
    }
    default:
      return Value::None();
  }
}

absl::StatusOr<Rendering> Interpreter::Run(const nlohmann::ordered_json& variables,
                                           std::string_view messages_name) {
  SetEqualityWork(settings_.max_steps);
  Output output;
  output_ = &output;
  Scope* root = NewScope(nullptr);
  for (const auto& [name, json] : variables.items()) {
    const Value value = FromJson(json);
    if (name == messages_name && value.is(Type::kList)) {
      int index = 0;
      for (const Value& item : value.as<SequenceObject>()->items) {
        if (item.is(Type::kDict)) item.as<DictObject>()->message = index;
        ++index;
      }
    }
    const auto symbol = std::find(syntax_.symbols.begin(), syntax_.symbols.end(), name);
    if (symbol != syntax_.symbols.end()) {
      root->Set(static_cast<Symbol>(symbol - syntax_.symbols.begin()), value);
    }
  }
  Exec(syntax_.body, NewScope(root));
  Step(0);  // comparisons may have run out of work without a step after them
  if (!status_.ok()) return status_;
  if (messages_name.empty()) return Rendering{std::move(output.text), {}};
  size_t placed = 0;
  for (const Mark& mark : output.marks) placed += mark.kind == Mark::kGeneration;
  if (placed != generations_) {
    return absl::FailedPreconditionError(
        Cat("template ", syntax_.name,
            ": the text of a generation block was altered after the block (in a macro or a set "
            "block), so its "
            "place in the output is unknown; move {% generation %} to where the text is written"));
  }
  return Rendering{std::move(output.text), std::move(output.marks)};
}

Scope* Interpreter::NewScope(Scope* parent) {
  auto* scope = arena_.New<Scope>();
  scope->parent = parent;
  return scope;
}

Value Interpreter::Lookup(Symbol symbol, Scope* scope) {
  for (; scope != nullptr; scope = scope->parent) {
    for (const auto& [name, value] : scope->variables) {
      if (name == symbol) return value;
    }
  }
  const std::string& name = syntax_.symbols[symbol];
  if (const GlobalFunction function = FindGlobal(name)) {
    auto* object = arena_.New<FunctionObject>();
    object->name = name;
    object->function = function;
    return Value::Of(Type::kFunction, object);
  }
  return Undefined(Cat(ReprString(name), " is undefined"));
}

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

template <typename Body>
Value Interpreter::Capture(Body body) {
  Output captured;
  Output* outer = std::exchange(output_, &captured);
  outer_bytes_ += outer->text.size();
  const int depth = std::exchange(message_depth_, 0);
  body();
  output_ = outer;
  outer_bytes_ -= outer->text.size();
  message_depth_ = depth;
  Value value = String(std::move(captured.text));
  if (value.IsString()) value.as<StringObject>()->marks = std::move(captured.marks);
  return value;
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

// Template
// ----------------------------------------------------------------------------------------------------------

Template::Template(std::unique_ptr<const Syntax> syntax) : syntax_(std::move(syntax)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

absl::StatusOr<Template> Template::Parse(std::string_view source, std::string_view name) {
  absl::StatusOr<std::unique_ptr<Syntax>> syntax = ParseTemplate(source, name);
  if (!syntax.ok()) return syntax.status();
  return Template(std::move(*syntax));
}

absl::StatusOr<Rendering> Template::Render(const nlohmann::ordered_json& variables,
                                           const RenderSettings& settings,
                                           std::string_view messages_name) const {
  if (!variables.is_object() && !variables.is_null()) {
    return absl::InvalidArgumentError("the variables of a template must be a JSON object");
  }
  return Interpreter(*syntax_, settings).Run(variables, messages_name);
}

bool Template::has_generation_block() const { return syntax_->has_generation; }

}  // namespace finetuned::jinja
