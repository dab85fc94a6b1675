#include <algorithm>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_filters.h"
#include "worker/text/jinja_numbers.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

using Values = std::vector<Value>;

// "a.0.b" as jinja2's attribute arguments have it: names and indexes by turns.
class AttributePath {
 public:
  AttributePath(Interpreter& interpreter, const Value& attribute) {
    if (attribute.is(Type::kMissing) || attribute.is(Type::kNone)) return;
    if (!attribute.IsString()) {
      parts_.push_back(attribute);
      return;
    }
    const std::string dot = ".";
    for (std::string_view part : Split(Text(attribute), &dot, -1)) {
      int64_t index = 0;
      const bool number = !part.empty() &&
                          part.find_first_not_of("0123456789") == std::string_view::npos &&
                          ParseInt(part, 10, &index);
      parts_.push_back(number ? Value::Int(index) : interpreter.String(part));
    }
  }

  Value Get(Interpreter& interpreter, Value item, const Value& fallback = Value::Missing()) const {
    for (const Value& part : parts_) {
      item = interpreter.Getitem(item, part);
      if (item.IsUndefined() && !fallback.is(Type::kMissing) && !fallback.is(Type::kNone))
        item = fallback;
    }
    return item;
  }

 private:
  Values parts_;
};

Value IgnoreCase(Interpreter& interpreter, const Value& value) {
  return value.IsString() ? interpreter.String(Lower(Text(value))) : value;
}

// Stable order by keys computed once; errors stop it.
Values SortedBy(Interpreter& interpreter, const Values& items, const Values& keys, bool reverse) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  // A merge sort of our own: std::sort may run wild on comparisons that fail half way.
  std::vector<size_t> buffer(order.size());
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t begin = 0; begin < order.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, order.size());
      const size_t end = std::min(begin + 2 * width, order.size());
      size_t i = begin, j = middle;
      for (size_t k = begin; k < end; ++k) {
        bool right = i >= middle;
        if (!right && j < end) {
          right = reverse ? interpreter.Less(keys[order[i]], keys[order[j]])
                          : interpreter.Less(keys[order[j]], keys[order[i]]);
        }
        buffer[k] = right ? order[j++] : order[i++];
      }
    }
    order.swap(buffer);
    if (!interpreter.ok()) return {};
  }
  Values out;
  for (size_t i : order) out.push_back(items[i]);
  return out;
}

Value SortFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("sort", args, {"reverse", "case_sensitive", "attribute"}, 0, &bound))
    return Value();
  std::vector<AttributePath> paths;
  if (bound[2].IsString()) {
    const std::string comma = ",";
    for (std::string_view part : Split(Text(bound[2]), &comma, -1)) {
      paths.emplace_back(interpreter, interpreter.String(part));
    }
  } else {
    paths.emplace_back(interpreter, bound[2]);
  }
  const Values items = interpreter.Items(value);
  Values keys;
  for (const Value& item : items) {
    Values key;
    for (const AttributePath& path : paths) {
      const Value part = path.Get(interpreter, item);
      key.push_back(Truthy(bound[1]) ? part : IgnoreCase(interpreter, part));
    }
    keys.push_back(interpreter.List(std::move(key)));
    if (!interpreter.ok()) return Value();
  }
  return interpreter.List(SortedBy(interpreter, items, keys, Truthy(bound[0])));
}

Value DictsortFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("dictsort", args, {"case_sensitive", "by", "reverse"}, 0, &bound))
    return Value();
  const std::string by = bound[1].is(Type::kMissing) ? "key" : ToStr(bound[1]);
  if (by != "key" && by != "value")
    return interpreter.Fail("You can only sort by either \"key\" or \"value\"");
  if (value.IsUndefined()) return interpreter.FailUndefined(value);
  if (!value.is(Type::kDict))
    return interpreter.Fail(Cat("'", TypeName(value), "' object has no items"));
  Values items, keys;
  for (const auto& [key, item] : value.as<DictObject>()->items) {
    const Value& chosen = by == "key" ? key : item;
    keys.push_back(Truthy(bound[0]) ? chosen : IgnoreCase(interpreter, chosen));
    items.push_back(interpreter.Tuple({key, item}));
  }
  return interpreter.List(SortedBy(interpreter, items, keys, Truthy(bound[2])));
}

Value GroupbyFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("groupby", args, {"attribute", "default", "case_sensitive"}, 1, &bound))
    return Value();
  const AttributePath path(interpreter, bound[0]);
  const bool case_sensitive = Truthy(bound[2]);
  const auto key_of = [&](const Value& item) {
    const Value key = path.Get(interpreter, item, bound[1]);
    return case_sensitive ? key : IgnoreCase(interpreter, key);
  };
  const Values items = interpreter.Items(value);
  Values keys;
  for (const Value& item : items) keys.push_back(key_of(item));
  const Values sorted = SortedBy(interpreter, items, keys, false);
  Values groups;
  for (size_t i = 0; i < sorted.size() && interpreter.Step();) {
    const Value key = key_of(sorted[i]);
    Values members;
    const Value shown = case_sensitive ? key : path.Get(interpreter, sorted[i], bound[1]);
    do {
      members.push_back(sorted[i++]);
    } while (i < sorted.size() && interpreter.ok() && Equal(key_of(sorted[i]), key));
    const Value group = interpreter.Tuple({shown, interpreter.List(std::move(members))});
    if (!interpreter.ok()) return Value();
    group.as<SequenceObject>()->group = true;
    groups.push_back(group);
  }
  return interpreter.List(std::move(groups));
}

Value UniqueFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("unique", args, {"case_sensitive", "attribute"}, 0, &bound)) return Value();
  return interpreter.Generator([&interpreter, value, bound](Values* out) {
    const AttributePath path(interpreter, bound[1]);
    Values seen;
    for (const Value& item : interpreter.Items(value)) {
      Value key = path.Get(interpreter, item);
      if (!Truthy(bound[0])) key = IgnoreCase(interpreter, key);
      if (!Hashable(key)) interpreter.Fail(Cat("unhashable type: '", TypeName(key), "'"));
      if (!interpreter.Step(1 + static_cast<int64_t>(seen.size()))) return;
      if (std::any_of(seen.begin(), seen.end(),
                      [&](const Value& other) { return Equal(other, key); }))
        continue;
      seen.push_back(key);
      out->push_back(item);
    }
  });
}

template <bool want_max>
Value ExtremeFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("min", args, {"case_sensitive", "attribute"}, 0, &bound)) return Value();
  const Values items = interpreter.Items(value);
  if (!interpreter.ok()) return Value();
  if (items.empty()) return interpreter.Undefined("No aggregated item, sequence was empty.");
  const AttributePath path(interpreter, bound[1]);
  const auto key_of = [&](const Value& item) {
    const Value key = path.Get(interpreter, item);
    return Truthy(bound[0]) ? key : IgnoreCase(interpreter, key);
  };
  Value best = items[0];
  Value best_key = key_of(best);
  for (size_t i = 1; i < items.size() && interpreter.ok(); ++i) {
    const Value key = key_of(items[i]);
    if (!interpreter.ok()) return Value();
    if (!(want_max ? interpreter.Less(best_key, key, ">") : interpreter.Less(key, best_key)))
      continue;
    best = items[i];
    best_key = key;
  }
  return best;
}

Value SumFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("sum", args, {"attribute", "start"}, 0, &bound)) return Value();
  const AttributePath path(interpreter, bound[0]);
  Value total = bound[1].is(Type::kMissing) ? Value::Int(0) : bound[1];
  if (total.IsString())
    return interpreter.Fail("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : interpreter.Items(value)) {
    total = interpreter.Binary(Op::kAdd, total, path.Get(interpreter, item));
    if (!interpreter.Step()) return Value();
  }
  return total;
}

Value JoinFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("join", args, {"d", "attribute"}, 0, &bound)) return Value();
  const std::string separator = bound[0].is(Type::kMissing) ? "" : ToStr(bound[0]);
  const AttributePath path(interpreter, bound[1]);
  std::string out;
  bool first = true;
  for (const Value& item : interpreter.Items(value)) {
    if (!first) out += separator;
    first = false;
    out += ToStr(path.Get(interpreter, item));
    if (!interpreter.Step() || !interpreter.Reserve(out.size())) return Value();
  }
  return interpreter.String(std::move(out));
}

Value FirstFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("first", args, {}, 0, &bound)) return Value();
  Values items = interpreter.Items(value);
  if (!interpreter.ok()) return Value();
  if (items.empty()) return interpreter.Undefined("No first item, sequence was empty.");
  const Value first = items[0];
  if (value.is(Type::kGenerator)) {  // the rest is still to come
    items.erase(items.begin());
    value.as<SequenceObject>()->items = std::move(items);
  }
  return first;
}

Value LastFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("last", args, {}, 0, &bound)) return Value();
  if (value.is(Type::kGenerator)) return interpreter.Fail("'generator' object is not reversible");
  const Values items = interpreter.Items(value);
  if (!interpreter.ok()) return Value();
  return items.empty() ? interpreter.Undefined("No last item, sequence was empty.") : items.back();
}

Value ListFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("list", args, {}, 0, &bound)) return Value();
  return interpreter.List(interpreter.Items(value));
}

Value ReverseFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("reverse", args, {}, 0, &bound)) return Value();
  Values items = interpreter.Items(value);
  if (!interpreter.ok()) return Value();
  std::reverse(items.begin(), items.end());
  if (value.IsString()) {
    std::string out;
    for (const Value& item : items) out += Text(item);
    return interpreter.String(std::move(out));
  }
  // What cannot be reversed in place becomes a list; what can gives an iterator.
  if (value.is(Type::kGenerator)) return interpreter.List(std::move(items));
  return interpreter.Generator([items](Values* out) { *out = items; });
}

Value ItemsFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("items", args, {}, 0, &bound)) return Value();
  return interpreter.Generator([&interpreter, value](Values* out) {
    if (value.IsUndefined()) return;
    if (!value.is(Type::kDict)) {
      interpreter.Fail("Can only get item pairs from a mapping.");
      return;
    }
    for (const auto& [key, item] : value.as<DictObject>()->items)
      out->push_back(interpreter.Tuple({key, item}));
  });
}

Value BatchFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("batch", args, {"linecount", "fill_with"}, 1, &bound)) return Value();
  const Value fill = bound[1];
  const Value line = bound[0];
  return interpreter.Generator([&interpreter, value, line, fill](Values* out) {
    Values current;
    for (const Value& item : interpreter.Items(value)) {
      if (Equal(Value::Int(static_cast<int64_t>(current.size())), line)) {
        out->push_back(interpreter.List(std::exchange(current, {})));
      }
      current.push_back(item);
    }
    if (current.empty()) return;
    if (!fill.is(Type::kMissing) && !fill.is(Type::kNone)) {
      const int64_t width = interpreter.IntArgument(line, 0);
      if (width > 0 &&
          !interpreter.Reserve(static_cast<size_t>(std::min<int64_t>(width, INT64_MAX / 16)) * 16))
        return;
      while (static_cast<int64_t>(current.size()) < width) current.push_back(fill);
    }
    out->push_back(interpreter.List(std::move(current)));
  });
}

Value SliceFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  Values bound;
  if (!interpreter.Bind("slice", args, {"slices", "fill_with"}, 1, &bound)) return Value();
  return interpreter.Generator([&interpreter, value, bound](Values* out) {
    const Values items = interpreter.Items(value);
    const int64_t slices = interpreter.IntArgument(bound[0], 0);
    if (slices == 0) interpreter.Fail("integer division or modulo by zero");
    if (!interpreter.ok() || slices < 0) return;
    const auto length = static_cast<int64_t>(items.size());
    const int64_t each = length / slices;
    const int64_t with_extra = length % slices;
    int64_t begin = 0;
    for (int64_t i = 0; i < slices && interpreter.Step(); ++i) {
      const int64_t end = begin + each + (i < with_extra ? 1 : 0);
      Values part(items.begin() + begin, items.begin() + end);
      if (!bound[1].is(Type::kMissing) && !bound[1].is(Type::kNone) && i >= with_extra)
        part.push_back(bound[1]);
      out->push_back(interpreter.List(std::move(part)));
      begin = end;
    }
  });
}

Value MapFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  return interpreter.Generator([&interpreter, value, args](Values* out) {
    if (!Truthy(value)) return;
    const auto named = [&](std::string_view name) {
      for (const auto& [key, item] : args.named) {
        if (key == name) return item;
      }
      return Value::Missing();
    };
    const Value attribute = named("attribute");
    if (args.positional.empty() && !attribute.is(Type::kMissing)) {
      const Value fallback = named("default");
      if (args.named.size() > (fallback.is(Type::kMissing) ? 1U : 2U)) {
        interpreter.Fail("map: unexpected keyword argument");
        return;
      }
      const AttributePath path(interpreter, attribute);
      for (const Value& item : interpreter.Items(value)) {
        if (!interpreter.Step()) return;
        out->push_back(path.Get(interpreter, item, fallback));
      }
      return;
    }
    if (args.positional.empty() || !args.positional[0].IsString()) {
      interpreter.Fail("map requires a filter argument");
      return;
    }
    Args rest = args;
    rest.positional.erase(rest.positional.begin());
    for (const Value& item : interpreter.Items(value)) {
      if (!interpreter.ok()) return;
      out->push_back(interpreter.ApplyFilter(Text(args.positional[0]), item, rest));
    }
  });
}

template <bool by_attribute, bool keep>
Value SelectFilter(Interpreter& interpreter, const Value& value, const Args& args) {
  return interpreter.Generator([&interpreter, value, args](Values* out) {
    if (!Truthy(value)) return;
    constexpr size_t kSkip = by_attribute ? 1 : 0;
    if (args.positional.size() < kSkip) {
      interpreter.Fail("Missing parameter for attribute name");
      return;
    }
    const AttributePath path(interpreter, by_attribute ? args.positional[0] : Value::Missing());
    const bool has_test = args.positional.size() > kSkip;
    Args rest = args;
    rest.positional.erase(rest.positional.begin(),
                          rest.positional.begin() + kSkip + (has_test ? 1 : 0));
    if (has_test && !args.positional[kSkip].IsString()) {
      interpreter.Fail(Cat("No test named ", Repr(args.positional[kSkip])));
      return;
    }
    for (const Value& item : interpreter.Items(value)) {
      const Value subject = path.Get(interpreter, item);
      const bool passes = has_test
                              ? interpreter.ApplyTest(Text(args.positional[kSkip]), subject, rest)
                              : Truthy(subject);
      if (!interpreter.Step()) return;
      if (passes == keep) out->push_back(item);
    }
  });
}

}  // namespace

std::vector<NamedFilter> SequenceFilters() {
  return {{"batch", BatchFilter},
          {"dictsort", DictsortFilter},
          {"first", FirstFilter},
          {"groupby", GroupbyFilter},
          {"items", ItemsFilter},
          {"join", JoinFilter},
          {"last", LastFilter},
          {"list", ListFilter},
          {"map", MapFilter},
          {"max", ExtremeFilter<true>},
          {"min", ExtremeFilter<false>},
          {"reject", SelectFilter<false, false>},
          {"rejectattr", SelectFilter<true, false>},
          {"reverse", ReverseFilter},
          {"select", SelectFilter<false, true>},
          {"selectattr", SelectFilter<true, true>},
          {"slice", SliceFilter},
          {"sort", SortFilter},
          {"sum", SumFilter},
          {"unique", UniqueFilter}};
}

}  // namespace finetuned::jinja
