// What an evaluation works with: its error and limits, new values, scopes, the run of a template.
// Statements, expressions, operators, access and calls have a file each.
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

}  // namespace finetuned::jinja
