// Evaluates a parsed template. Internal to the engine: use jinja.h.
//
// Errors are sticky: the first Fail() is kept, evaluation goes on with Undefined values and every
// loop and statement stops at once. So operations need no error plumbing, only care that an
// Undefined operand does no harm.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "worker/text/jinja.h"
#include "worker/text/jinja_ast.h"
#include "worker/text/jinja_value.h"

namespace finetuned::jinja {

class Interpreter;

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

using FilterFunction = Value (*)(Interpreter&, const Value& subject, const Args&);
using TestFunction = bool (*)(Interpreter&, const Value& subject, const Args&);
using MethodFunction = Value (*)(Interpreter&, const Value& self, const Args&);
using GlobalFunction = Value (*)(Interpreter&, const Args&);

// Null where there is none of this name.
FilterFunction FindFilter(std::string_view name);
TestFunction FindTest(std::string_view name);
GlobalFunction FindGlobal(std::string_view name);
// Methods of str, dict, list, tuple, … by the type of self. *unsafe is set for those that the
// immutable sandbox refuses (list.append, dict.update, …).
MethodFunction FindMethod(const Value& self, std::string_view name, bool* unsafe);

// Variables of one block. Lookup goes outwards; assignment stays here.
struct Scope : Object {
  Scope* parent = nullptr;
  std::vector<std::pair<Symbol, Value>> variables;
  bool captured = false;  // a macro holds it: a loop must not reuse it

  void Set(Symbol symbol, const Value& value) {
    for (auto& [name, existing] : variables) {
      if (name == symbol) {
        existing = value;
        return;
      }
    }
    variables.emplace_back(symbol, value);
  }
};

struct FunctionObject : Object {
  std::string name;
  GlobalFunction function = nullptr;
  std::string Describe() const override { return "<function " + name + ">"; }
};

struct MethodObject : Object {
  Value self;
  std::string name;
  MethodFunction function = nullptr;
  std::string Describe() const override { return "<built-in method " + name + ">"; }
};

struct MacroObject : Object {
  const Stmt* stmt = nullptr;  // kMacro or kCallBlock
  Scope* scope = nullptr;      // where it was defined
  std::string Describe() const override {
    return stmt->signature.anonymous ? "<Macro None>"
                                     : "<Macro " + ReprString(stmt->signature.name) + ">";
  }
};

struct LoopObject : Object {
  std::vector<Value> items;
  int64_t index0 = 0;
  int64_t depth0 = 0;
  const Stmt* recursive = nullptr;
  Scope* scope = nullptr;  // outside the loop
  bool has_changed_value = false;
  std::vector<Value> changed_value;
  std::string Describe() const override {
    return "<LoopContext " + std::to_string(index0 + 1) + "/" + std::to_string(items.size()) + ">";
  }
};

class Interpreter {
 public:
  Interpreter(const Syntax& syntax, const RenderSettings& settings);

  absl::StatusOr<Rendering> Run(const nlohmann::ordered_json& variables,
                                std::string_view messages_name);

  // Errors
  // -----------------------------------------------------------------------------------------------------------
  bool ok() const { return status_.ok(); }
  Value Fail(std::string_view message);         // at the position being evaluated
  Value FailUndefined(const Value& undefined);  // an operation that Undefined does not allow
  Value FailLimit(std::string_view message);
  // Counts work; false once the limit is passed or after an error.
  bool Step(int64_t count = 1);
  // Announces an object of that many bytes before it is built.
  bool Reserve(size_t bytes);

  // Making values
  // ----------------------------------------------------------------------------------------------------
  Arena& arena() { return arena_; }
  Value String(std::string text);
  Value String(std::string_view text) { return String(std::string(text)); }
  Value Markup(std::string text);
  Value List(std::vector<Value> items) { return Sequence(Type::kList, std::move(items)); }
  Value Tuple(std::vector<Value> items) { return Sequence(Type::kTuple, std::move(items)); }
  Value Sequence(Type type, std::vector<Value> items);
  Value Generator(std::function<void(std::vector<Value>*)> compute);
  Value View(std::string_view kind, std::vector<Value> items);
  Value Undefined(std::string message);
  Value FromJson(const nlohmann::ordered_json& json, int depth = 0);

  // Operations
  // -------------------------------------------------------------------------------------------------------
  Value Binary(Op op, const Value& a, const Value& b);
  bool Compare(Op op, const Value& a, const Value& b);
  bool Less(const Value& a, const Value& b, std::string_view op = "<", int depth = 0);
  bool Contains(const Value& container, const Value& item);
  Value Negate(const Value& value, bool minus);
  Value Concat(const std::vector<Value>& parts);
  Value Getattr(const Value& object, const std::string& name);
  Value Getitem(const Value& object, const Value& key);
  Value Slice(const Value& object, const Value& start, const Value& stop, const Value& step);
  // All elements in order; an error where Python's iter() raises.
  std::vector<Value> Items(const Value& value);
  bool IsIterable(const Value& value) const;
  Value Call(const Value& callee, Args args);
  Value ApplyFilter(const std::string& name, const Value& subject, const Args& args);
  bool ApplyTest(const std::string& name, const Value& subject, const Args& args);
  // Calls with this many arguments or fewer, some by name. Fills *out with one value a name
  // (kMissing if absent).
  bool Bind(std::string_view function, const Args& args,
            std::initializer_list<std::string_view> names, size_t required,
            std::vector<Value>* out);
  // The argument as an integer; `fallback` if missing; an error for other types.
  int64_t IntArgument(const Value& value, int64_t fallback);

  const RenderSettings& settings() const { return settings_; }

 private:
  enum class Flow { kNormal, kBreak, kContinue };
  struct Output {
    std::string text;
    std::vector<Mark> marks;
  };

  Value Eval(const Expr& expr, Scope* scope);
  Value EvalCall(const Expr& expr, Scope* scope, const Value* caller);
  void EvalArguments(const Expr& expr, size_t first, Scope* scope, Args* args);
  Value EvalFilter(const Expr& expr, Scope* scope, const Value* block);
  Value Lookup(Symbol symbol, Scope* scope);
  bool Evaluate(const Expr& expr, Scope* scope) { return Truthy(Eval(expr, scope)); }

  Flow Exec(const std::vector<StmtPtr>& body, Scope* scope);
  Flow ExecOne(const Stmt& stmt, Scope* scope);
  Flow ExecIf(const Stmt& stmt, Scope* scope);
  void ExecFor(const Stmt& stmt, const Value& iterable, Scope* scope, int64_t depth0);
  void ExecOutput(const Stmt& stmt, Scope* scope);
  void ExecCallBlock(const Stmt& stmt, Scope* scope);
  void ExecGeneration(const Stmt& stmt, Scope* scope);
  void Assign(const Expr& target, const Value& value, Scope* scope);
  Value CallMacro(const MacroObject& macro, Args args);
  Value CallLoop(LoopObject* loop, const Args& args);
  Value LoopAttribute(LoopObject* loop, const std::string& name);
  Scope* NewScope(Scope* parent);
  void Emit(const Value& value);
  void EmitText(std::string_view text);

  // Counts recursion through statements and expressions; the C++ stack holds about 2,000 levels
  // safely.
  struct Deeper {
    explicit Deeper(Interpreter* interpreter) : interpreter(interpreter) {
      if (++interpreter->depth_ > 2000) interpreter->FailLimit("recursion too deep");
    }
    ~Deeper() { --interpreter->depth_; }
    Interpreter* interpreter;
  };

  // Runs `body` with output going to a string of its own.
  template <typename Body>
  Value Capture(Body body);

  const Syntax& syntax_;
  const RenderSettings& settings_;
  Arena arena_;
  Output* output_ = nullptr;
  absl::Status status_;
  Position position_;
  int64_t steps_left_;
  int depth_ = 0;
  int call_depth_ = 0;
  size_t outer_bytes_ = 0;  // of the outputs around the current one
  int message_depth_ = 0;
  size_t generations_ = 0;
};

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

}  // namespace finetuned::jinja
