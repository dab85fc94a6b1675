// The global functions.
#include "absl/container/flat_hash_map.h"
#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_methods.h"

namespace finetuned::jinja {
namespace {

using Values = std::vector<Value>;

Value RangeGlobal(Interpreter& interpreter, const Args& args) {
  if (!args.named.empty()) return interpreter.Fail("range() takes no keyword arguments");
  const Values& given = args.positional;
  if (given.empty() || given.size() > 3) {
    return interpreter.Fail(Cat("range expected 1 to 3 arguments, got ", given.size()));
  }
  Value value = interpreter.Sequence(Type::kRange, {});
  if (!value.is(Type::kRange)) return value;
  auto* range = value.as<SequenceObject>();
  range->start = given.size() == 1 ? 0 : interpreter.IntArgument(given[0], 0);
  range->stop = interpreter.IntArgument(given.size() == 1 ? given[0] : given[1], 0);
  range->step = given.size() == 3 ? interpreter.IntArgument(given[2], 1) : 1;
  if (!interpreter.ok()) return Value();
  if (range->step == 0) return interpreter.Fail("range() arg 3 must not be zero");
  if (RangeLength(*range) > 100000) {
    return interpreter.Fail(
        "Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  }
  return value;
}

bool ToPairs(Interpreter& interpreter, const Args& args,
             std::vector<std::pair<Value, Value>>* out) {
  if (args.positional.size() > 1) {
    interpreter.Fail(Cat("dict expected at most 1 argument, got ", args.positional.size()));
    return false;
  }
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is(Type::kDict)) {
      *out = source.as<DictObject>()->items;
    } else {
      for (const Value& item : interpreter.Items(source)) {
        const Values pair = interpreter.Items(item);
        if (interpreter.ok() && pair.size() != 2) {
          interpreter.Fail("dictionary update sequence element must have two items");
        }
        if (!interpreter.ok()) return false;
        if (!Hashable(pair[0])) {
          interpreter.Fail(Cat("unhashable type: '", TypeName(pair[0]), "'"));
          return false;
        }
        out->emplace_back(pair[0], pair[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) out->emplace_back(interpreter.String(name), value);
  return interpreter.ok();
}

Value DictGlobal(Interpreter& interpreter, const Args& args) {
  std::vector<std::pair<Value, Value>> pairs;
  if (!ToPairs(interpreter, args, &pairs)) return Value();
  auto* dict = interpreter.arena().New<DictObject>();
  interpreter.arena().Charge(pairs.size() * 2 * sizeof(Value));
  for (const auto& [key, value] : pairs) Insert(dict, key, value);
  return Value::Of(Type::kDict, dict);
}

Value NamespaceGlobal(Interpreter& interpreter, const Args& args) {
  std::vector<std::pair<Value, Value>> pairs;
  if (!ToPairs(interpreter, args, &pairs)) return Value();
  auto* dict = interpreter.arena().New<DictObject>();
  for (const auto& [key, value] : pairs) Insert(dict, key, value);
  auto* object = interpreter.arena().New<NamespaceObject>();
  for (const auto& [key, value] : dict->items) object->attributes.emplace_back(ToStr(key), value);
  return Value::Of(Type::kNamespace, object);
}

Value CyclerGlobal(Interpreter& interpreter, const Args& args) {
  if (args.positional.empty()) return interpreter.Fail("at least one item has to be provided");
  if (!args.named.empty()) return interpreter.Fail("cycler() takes no keyword arguments");
  auto* object = interpreter.arena().New<CyclerObject>();
  object->items = args.positional;
  return Value::Of(Type::kCycler, object);
}

Value JoinerGlobal(Interpreter& interpreter, const Args& args) {
  Values bound;
  if (!interpreter.Bind("joiner", args, {"sep"}, 0, &bound)) return Value();
  auto* object = interpreter.arena().New<JoinerObject>();
  object->separator =
      bound[0].is(Type::kMissing) ? interpreter.String(std::string_view(", ")) : bound[0];
  return Value::Of(Type::kJoiner, object);
}

Value RaiseGlobal(Interpreter& interpreter, const Args& args) {
  Values bound;
  if (!interpreter.Bind("raise_exception", args, {"message"}, 1, &bound)) return Value();
  return interpreter.Fail(ToStr(bound[0]));
}

Value StrftimeGlobal(Interpreter& interpreter, const Args& args) {
  Values bound;
  if (!interpreter.Bind("strftime_now", args, {"format"}, 1, &bound)) return Value();
  if (!NeedText(interpreter, "strftime", bound[0])) return Value();
  const RenderSettings& settings = interpreter.settings();
  return interpreter.String(Strftime(Text(bound[0]), settings.now, settings.zone));
}

Value LipsumGlobal(Interpreter& interpreter, const Args&) {
  return interpreter.Fail("lipsum() is random; a rerun must give equal text");
}

}  // namespace

GlobalFunction FindGlobal(std::string_view name) {
  static const auto* table = new absl::flat_hash_map<std::string_view, GlobalFunction>{
      {"range", RangeGlobal},           {"dict", DictGlobal},     {"namespace", NamespaceGlobal},
      {"cycler", CyclerGlobal},         {"joiner", JoinerGlobal}, {"raise_exception", RaiseGlobal},
      {"strftime_now", StrftimeGlobal}, {"lipsum", LipsumGlobal}};
  const auto it = table->find(name);
  return it == table->end() ? nullptr : it->second;
}

}  // namespace finetuned::jinja
