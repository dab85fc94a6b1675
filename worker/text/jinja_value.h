// Values of the template language: what Python objects are to jinja2.
//
// A Value is two words and trivially copyable. Objects behind it (strings, lists, dicts, …) are
// immutable except namespaces, loops, cyclers and generators, and belong to an Arena: one per
// rendering, freed as a whole, so cyclic namespaces neither leak nor recurse on destruction.
// Constants belong to the parsed template's own arena. Strings are UTF-8; lengths, indexes and
// slices are in code points, as in Python.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace finetuned::jinja {

enum class Type : uint8_t {
  kMissing,  // internal: an argument that was not passed
  kUndefined,
  kNone,
  kBool,
  kInt,  // 64 bits; arithmetic beyond them is an error
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kView,  // dict.keys(), dict.values(), dict.items()
  kRange,
  kGenerator,  // what map, select, batch … give: consumed by its first iteration
  kNamespace,
  kMacro,
  kLoop,
  kFunction,
  kMethod,
  kCycler,
  kJoiner,
};

struct Object {
  virtual ~Object() = default;
  // repr() of the kinds that are no plain data.
  virtual std::string Describe() const { return "<object>"; }
};

struct Value {
  Type type = Type::kUndefined;
  union {
    bool b;
    int64_t i = 0;
    double d;
    Object* object;  // null: an Undefined without explanation
  };

  static Value None() { return Make(Type::kNone); }
  static Value Missing() { return Make(Type::kMissing); }
  static Value Bool(bool value) {
    Value v = Make(Type::kBool);
    v.i = value;
    return v;
  }
  static Value Int(int64_t value) {
    Value v = Make(Type::kInt);
    v.i = value;
    return v;
  }
  static Value Float(double value) {
    Value v = Make(Type::kFloat);
    v.d = value;
    return v;
  }
  static Value Of(Type type, Object* object) {
    Value v = Make(type);
    v.object = object;
    return v;
  }

  bool is(Type t) const { return type == t; }
  bool IsString() const { return type == Type::kString; }
  bool IsUndefined() const { return type == Type::kUndefined; }
  // bool is a subclass of int in Python.
  bool IsIntegral() const { return type == Type::kInt || type == Type::kBool; }
  bool IsNumber() const { return IsIntegral() || type == Type::kFloat; }
  int64_t AsInt() const { return type == Type::kBool ? int64_t{b} : i; }
  double AsDouble() const { return type == Type::kFloat ? d : static_cast<double>(AsInt()); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(object);
  }

 private:
  static Value Make(Type type) {
    Value v;
    v.type = type;
    return v;
  }
};

// Where a piece of text came from. Offsets are bytes of the text that carries the mark.
struct Mark {
  // kGeneration: output of a {% generation %} block.
  // kMessage: output of one iteration of a loop over the input messages.
  enum Kind : uint8_t { kGeneration, kMessage };
  Kind kind;
  int message;  // index into the input messages; -1 for kGeneration
  int depth;    // how many message iterations enclose this one
  size_t begin;
  size_t end;
};

struct StringObject : Object {
  std::string text;
  bool markup = false;  // the result of safe/escape: not escaped again
  std::vector<Mark>
      marks;  // kept by capture (set block, macro, caller), + and ~; dropped by anything else
};

struct SequenceObject : Object {
  std::vector<Value> items;
  std::string_view view;                  // kView: "dict_keys", "dict_values" or "dict_items"
  int64_t start = 0, stop = 0, step = 1;  // kRange
  bool group = false;                     // a tuple of groupby: has .grouper and .list
  std::function<void(std::vector<Value>*)> pending;  // kGenerator: computes the items on first use
};

struct DictObject : Object {
  std::vector<std::pair<Value, Value>> items;             // in insertion order
  absl::flat_hash_map<std::string_view, uint32_t> index;  // string keys, once there are many
  int message = -1;                                       // index of the input message that this is
};

struct UndefinedObject : Object {
  std::string message;
};

struct NamespaceObject : Object {
  std::vector<std::pair<std::string, Value>> attributes;
};

struct CyclerObject : Object {
  std::vector<Value> items;
  size_t position = 0;
};

struct JoinerObject : Object {
  Value separator;
  bool used = false;
};

class Arena {
 public:
  template <typename T>
  T* New() {
    auto owned = std::make_unique<T>();
    T* raw = owned.get();
    objects_.push_back(std::move(owned));
    bytes_ += sizeof(T) + 32;
    return raw;
  }
  Value String(std::string text) {
    bytes_ += text.size();
    auto* object = New<StringObject>();
    object->text = std::move(text);
    return Value::Of(Type::kString, object);
  }
  void Charge(size_t bytes) { bytes_ += bytes; }
  size_t bytes() const { return bytes_; }

 private:
  std::vector<std::unique_ptr<Object>> objects_;
  size_t bytes_ = 0;
};

inline const std::string& Text(const Value& string) { return string.as<StringObject>()->text; }

// Python's type names, as its error messages give them: "str", "int", "NoneType" …
std::string_view TypeName(const Value& value);

bool Truthy(const Value& value);

// str(value) and repr(value). Nesting beyond 200 levels prints "...".
std::string ToStr(const Value& value);
std::string Repr(const Value& value);
std::string ReprString(std::string_view text);
std::string ReprFloat(double value);

// Python's ==. Never fails.
bool Equal(const Value& a, const Value& b, int depth = 0);
// Comparing lists that share their elements can take exponential time. A rendering sets how many
// comparisons its thread may make; past that Equal answers false at once and EqualityWorkLeft()
// tells.
void SetEqualityWork(int64_t comparisons);
bool EqualityWorkLeft();

// Lookup by key; nullptr if absent. The key must be hashable (see Hashable).
const Value* Find(const DictObject& dict, const Value& key);
const Value* Find(const DictObject& dict, std::string_view key);
bool Hashable(const Value& value);
// Inserts or overwrites, keeping the first position.
void Insert(DictObject* dict, const Value& key, const Value& value);

// Number of elements of a string (code points), sequence or dict; -1 where Python's len() raises.
int64_t Length(const Value& value);

// Length of a range(start, stop, step).
int64_t RangeLength(const SequenceObject& range);

}  // namespace finetuned::jinja
