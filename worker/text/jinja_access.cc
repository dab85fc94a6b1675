// What values hold: iteration, attributes, items, slices.
#include <algorithm>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_interpreter.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

// The object as Undefined's messages name it: "dict object", "None".
std::string ObjectName(const Value& value) {
  return value.is(Type::kNone) ? "None" : Cat(TypeName(value), " object");
}

}  // namespace

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
