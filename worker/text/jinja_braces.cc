// str.format: replacement fields in braces.
#include <algorithm>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_format.h"
#include "worker/text/jinja_numbers.h"

namespace finetuned::jinja {
namespace {

// One replacement field: name, accessors, conversion and spec (which may hold fields itself).
class BraceFormatter {
 public:
  BraceFormatter(Interpreter& interpreter, const Args& args)
      : interpreter_(interpreter), args_(args) {}

  bool Run(std::string_view format, int depth, std::string* out) {
    if (depth > 2) return Fail("Max string recursion exceeded");
    for (size_t i = 0; i < format.size();) {
      const char c = format[i];
      if (c != '{' && c != '}') {
        *out += c;
        ++i;
        continue;
      }
      if (i + 1 < format.size() && format[i + 1] == c) {
        *out += c;
        i += 2;
        continue;
      }
      if (c == '}') return Fail("Single '}' encountered in format string");
      size_t close = i + 1;
      for (int open = 1; close < format.size(); ++close) {
        if (format[close] == '{') ++open;
        if (format[close] == '}' && --open == 0) break;
      }
      if (close >= format.size()) return Fail("Single '{' encountered in format string");
      if (!Field(format.substr(i + 1, close - i - 1), depth, out)) return false;
      if (!interpreter_.Reserve(out->size()) || !interpreter_.Step()) return false;
      i = close + 1;
    }
    return true;
  }

 private:
  bool Fail(std::string_view message) {
    interpreter_.Fail(message);
    return false;
  }

  bool Field(std::string_view field, int depth, std::string* out) {
    const size_t end = std::min(field.find_first_of("!:"), field.size());
    std::string_view name = field.substr(0, end);
    std::string_view rest = field.substr(end);
    char conversion = '\0';
    if (!rest.empty() && rest[0] == '!') {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':'))
        return Fail("expected ':' after conversion specifier");
      conversion = rest[1];
      rest = rest.substr(2);
    }
    // The field takes its number before the fields inside its spec do.
    Value value;
    if (!Resolve(name, &value)) return false;
    std::string spec;
    if (!rest.empty() && !Run(rest.substr(1), depth + 1, &spec)) return false;
    if (conversion == 'r' || conversion == 'a') {
      value = interpreter_.String(Repr(value));
    } else if (conversion == 's') {
      value = interpreter_.String(ToStr(value));
    } else if (conversion != '\0') {
      return Fail("unknown conversion specifier");
    }
    return interpreter_.ok() && FormatSpec(interpreter_, value, spec, out);
  }

  bool Resolve(std::string_view name, Value* value) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    const std::string first(name.substr(0, end));
    int64_t index = 0;
    if (first.empty()) {
      if (manual_)
        return Fail("cannot switch from manual field specification to automatic field numbering");
      index = next_++;
      automatic_ = true;
    } else if (first.find_first_not_of("0123456789") == std::string::npos) {
      if (automatic_)
        return Fail("cannot switch from automatic field numbering to manual field specification");
      manual_ = true;
      if (!ParseInt(first, 10, &index)) return Fail("Too many decimal digits in format string");
    } else {
      index = -1;
      bool found = false;
      for (const auto& [key, named] : args_.named) {
        if (key != first) continue;
        *value = named;
        found = true;
      }
      if (!found) return Fail(Cat("KeyError: ", ReprString(first)));
    }
    if (index >= 0) {
      if (index >= static_cast<int64_t>(args_.positional.size())) {
        return Fail(Cat("Replacement index ", index, " out of range for positional args tuple"));
      }
      *value = args_.positional[static_cast<size_t>(index)];
    }
    for (size_t i = end; i < name.size() && interpreter_.ok();) {
      if (name[i] == '.') {
        const size_t stop = std::min(name.find_first_of(".[", i + 1), name.size());
        *value = interpreter_.Getattr(*value, std::string(name.substr(i + 1, stop - i - 1)));
        i = stop;
      } else {
        const size_t stop = name.find(']', i);
        if (name[i] != '[' || stop == std::string_view::npos)
          return Fail("Missing ']' in format string");
        const std::string key(name.substr(i + 1, stop - i - 1));
        int64_t number = 0;
        const bool numeric = !key.empty() &&
                             key.find_first_not_of("0123456789") == std::string::npos &&
                             ParseInt(key, 10, &number);
        *value =
            interpreter_.Getitem(*value, numeric ? Value::Int(number) : interpreter_.String(key));
        i = stop + 1;
      }
    }
    return interpreter_.ok();
  }

  Interpreter& interpreter_;
  const Args& args_;
  int64_t next_ = 0;
  bool automatic_ = false;
  bool manual_ = false;
};

}  // namespace

Value FormatBraces(Interpreter& interpreter, std::string_view format, const Args& args) {
  std::string out;
  if (!BraceFormatter(interpreter, args).Run(format, 0, &out)) return Value();
  return interpreter.String(std::move(out));
}

}  // namespace finetuned::jinja
