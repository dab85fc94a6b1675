// Python's format specifications and printf formats; both lay a number or text out by one Spec.
#include "worker/text/jinja_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "worker/text/jinja_cat.h"
#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

constexpr int kMaxWidth = 1 << 20;  // of a padded field; more is a mistake

struct Spec {
  std::string fill = " ";
  char align = '\0';  // '<' '>' '=' '^', or by type
  char sign = '-';    // '+', ' ' or '-'
  bool alternate = false;
  int width = 0;
  char group = '\0';  // ',' or '_'
  int precision = -1;
  char type = '\0';
};

void Pad(const Spec& spec, char default_align, std::string_view sign, std::string_view body,
         std::string* out) {
  const int64_t length = CodePointCount(body) + static_cast<int64_t>(sign.size());
  const int64_t missing = std::max<int64_t>(0, spec.width - length);
  const char align = spec.align == '\0' ? default_align : spec.align;
  const int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  const auto fill = [&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) *out += spec.fill;
  };
  fill(left);
  *out += sign;
  if (align == '=') fill(missing);
  *out += body;
  if (align != '=') fill(missing - left);
}

std::string Grouped(std::string_view digits, char separator, size_t every) {
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % every == 0) out += separator;
    out += digits[i];
  }
  return out;
}

std::string InBase(uint64_t magnitude, char type) {
  const int base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
  char buffer[72];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, magnitude, base);
  std::string digits(buffer, end.ptr);
  return type == 'X' ? Upper(digits) : digits;
}

uint64_t Magnitude(int64_t value) {
  return value < 0 ? uint64_t{0} - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
}

std::string SignText(bool negative, char sign) {
  return negative ? "-" : sign == '-' ? "" : std::string(1, sign);
}

// |value| by a printf conversion (e, f, g and capitals), '#' keeping the point.
std::string PrintfFloat(double magnitude, char type, int precision, bool alternate) {
  if (!std::isfinite(magnitude)) {
    const char* text = std::isnan(magnitude) ? "nan" : "inf";
    return type >= 'A' && type <= 'Z' ? Upper(text) : text;
  }
  const char format[] = {'%',
                         alternate ? '#' : '.',
                         alternate ? '.' : '*',
                         alternate ? '*' : type,
                         alternate ? type : '\0',
                         '\0'};
  std::string buffer(static_cast<size_t>(precision) + 350, '\0');
  const int length = std::snprintf(buffer.data(), buffer.size(), format, precision, magnitude);
  buffer.resize(static_cast<size_t>(length));
  return buffer;
}

bool ParseSpec(Interpreter& interpreter, std::string_view text, Spec* spec) {
  const std::vector<std::string_view> chars = SplitCodePoints(text);
  size_t i = 0;
  const auto at = [&](size_t k) { return k < chars.size() ? chars[k] : std::string_view(); };
  const auto is_align = [](std::string_view c) {
    return c == "<" || c == ">" || c == "=" || c == "^";
  };
  if (is_align(at(1))) {
    spec->fill = std::string(at(0));
    spec->align = at(1)[0];
    i = 2;
  } else if (is_align(at(0))) {
    spec->align = at(0)[0];
    i = 1;
  }
  if (at(i) == "+" || at(i) == "-" || at(i) == " ") spec->sign = at(i++)[0];
  if (at(i) == "#") {
    spec->alternate = true;
    ++i;
  }
  if (at(i) == "0") {
    if (spec->align == '\0') {
      spec->fill = "0";
      spec->align = '=';
    }
    ++i;
  }
  const auto number = [&](int* out) {
    int value = 0;
    bool any = false;
    for (; at(i).size() == 1 && at(i)[0] >= '0' && at(i)[0] <= '9'; ++i) {
      value = std::min(value * 10 + (at(i)[0] - '0'), kMaxWidth + 1);
      any = true;
    }
    if (any) *out = value;
    return any;
  };
  number(&spec->width);
  if (at(i) == "," || at(i) == "_") spec->group = at(i++)[0];
  if (at(i) == ".") {
    ++i;
    if (!number(&spec->precision)) {
      interpreter.Fail("Format specifier missing precision");
      return false;
    }
  }
  if (at(i).size() == 1) spec->type = at(i++)[0];
  if (i != chars.size()) {
    interpreter.Fail(Cat("Invalid format specifier '", text, "'"));
    return false;
  }
  if (spec->width > kMaxWidth || spec->precision > kMaxWidth) {
    interpreter.Fail("format width or precision is too large");
    return false;
  }
  return true;
}

bool FormatInteger(Interpreter& interpreter, int64_t value, const Spec& spec, std::string* out) {
  const char type = spec.type == '\0' || spec.type == 'n' ? 'd' : spec.type;
  if (type == 'c') {
    std::string body;
    if (value < 0 || value > 0x10FFFF) {
      interpreter.Fail("%c arg not in range(0x110000)");
      return false;
    }
    AppendUtf8(static_cast<char32_t>(value), &body);
    Pad(spec, '<', "", body, out);
    return true;
  }
  if (spec.precision >= 0) {
    interpreter.Fail("Precision not allowed in integer format specifier");
    return false;
  }
  std::string body = InBase(Magnitude(value), type);
  if (spec.group != '\0') body = Grouped(body, spec.group, type == 'd' ? 3 : 4);
  std::string sign = SignText(value < 0, spec.sign);
  if (spec.alternate && type != 'd') sign += std::string("0") + type;
  Pad(spec, '>', sign, body, out);
  return true;
}

void FormatDouble(double value, const Spec& spec, std::string* out) {
  char type = spec.type == 'n' ? 'g' : spec.type;
  const bool percent = type == '%';
  if (percent) {
    value *= 100;
    type = 'f';
  }
  const double magnitude = std::fabs(value);
  std::string body;
  if (type == '\0' && spec.precision < 0) {
    body = ReprFloat(magnitude);
  } else if (type == '\0') {
    body = PrintfFloat(magnitude, 'g', std::max(1, spec.precision), spec.alternate);
    // Without a type, a number that looks whole keeps its ".0".
    if (body.find_first_of(".en") == std::string::npos) {
      body += ".0";
      if (magnitude != 0 && std::log10(magnitude) >= std::max(1, spec.precision) - 1) {
        body = PrintfFloat(magnitude, 'e', std::max(1, spec.precision) - 1, spec.alternate);
        const size_t e = body.find('e');
        const std::string mantissa = body.substr(0, body.find_last_not_of("0.", e - 1) + 1);
        body = (mantissa.empty() ? "0" : mantissa) + body.substr(e);
      }
    }
  } else {
    body = PrintfFloat(magnitude, type, spec.precision < 0 ? 6 : spec.precision, spec.alternate);
  }
  if (spec.group != '\0') {
    const size_t whole = std::min(body.find_first_not_of("0123456789"), body.size());
    body = Grouped(std::string_view(body).substr(0, whole), spec.group, 3) + body.substr(whole);
  }
  if (percent) body += '%';
  Pad(spec, '>', SignText(std::signbit(value) && !std::isnan(value), spec.sign), body, out);
}

}  // namespace

bool FormatSpec(Interpreter& interpreter, const Value& value, std::string_view text,
                std::string* out) {
  if (text.empty()) {
    *out += ToStr(value);
    return true;
  }
  Spec spec;
  if (!ParseSpec(interpreter, text, &spec)) return false;
  static constexpr std::string_view kIntTypes = "bcdoxXn";
  static constexpr std::string_view kFloatTypes = "eEfFgGn%";
  const auto unknown = [&] {
    interpreter.Fail(Cat("Unknown format code '", std::string(1, spec.type),
                         "' for object of type '", TypeName(value), "'"));
    return false;
  };
  if (value.IsString()) {
    if (spec.type != '\0' && spec.type != 's') return unknown();
    if (spec.align == '=') {
      interpreter.Fail("'=' alignment not allowed in string format specifier");
      return false;
    }
    std::string_view body = Text(value);
    if (spec.precision >= 0) body = body.substr(0, ByteOffset(body, spec.precision));
    Pad(spec, '<', "", body, out);
    return true;
  }
  if (value.is(Type::kBool) && spec.type == '\0') {
    // bool formats as int once there is a spec.
    return FormatInteger(interpreter, value.AsInt(), spec, out);
  }
  if (value.IsIntegral()) {
    if (spec.type == '\0' || kIntTypes.find(spec.type) != std::string_view::npos) {
      return FormatInteger(interpreter, value.AsInt(), spec, out);
    }
    if (kFloatTypes.find(spec.type) == std::string_view::npos) return unknown();
    FormatDouble(value.AsDouble(), spec, out);
    return true;
  }
  if (value.is(Type::kFloat)) {
    if (spec.type != '\0' && kFloatTypes.find(spec.type) == std::string_view::npos)
      return unknown();
    FormatDouble(value.d, spec, out);
    return true;
  }
  interpreter.Fail(Cat("unsupported format string passed to ", TypeName(value), ".__format__"));
  return false;
}

Value FormatPercent(Interpreter& interpreter, const Value& format_value, const Value& values) {
  const std::string_view format = Text(format_value);
  const bool tuple = values.is(Type::kTuple);
  const std::vector<Value> list =
      tuple ? values.as<SequenceObject>()->items : std::vector<Value>{values};
  size_t next = 0;
  bool used_mapping = false;
  std::string out;
  const auto fail = [&](std::string_view message) { return interpreter.Fail(message); };
  const auto take = [&](Value* value) {
    if (next >= list.size()) {
      interpreter.Fail("not enough arguments for format string");
      return false;
    }
    *value = list[next++];
    return true;
  };
  for (size_t i = 0; i < format.size();) {
    if (format[i] != '%') {
      out += format[i++];
      continue;
    }
    if (++i >= format.size()) return fail("incomplete format");
    if (format[i] == '%') {
      out += '%';
      ++i;
      continue;
    }
    Value value = Value::Missing();
    if (format[i] == '(') {
      const size_t close = format.find(')', i);
      if (close == std::string_view::npos) return fail("incomplete format key");
      if (!values.is(Type::kDict)) return fail("format requires a mapping");
      const std::string key(format.substr(i + 1, close - i - 1));
      const Value* item = Find(*values.as<DictObject>(), std::string_view(key));
      if (item == nullptr) return fail(Cat("KeyError: ", ReprString(key)));
      value = *item;
      used_mapping = true;
      i = close + 1;
    }
    Spec spec;
    spec.align = '>';
    bool zero = false;
    for (; i < format.size() && std::string_view("-+ #0").find(format[i]) != std::string_view::npos;
         ++i) {
      if (format[i] == '-') spec.align = '<';
      if (format[i] == '+') spec.sign = '+';
      if (format[i] == ' ' && spec.sign != '+') spec.sign = ' ';
      if (format[i] == '#') spec.alternate = true;
      if (format[i] == '0') zero = true;
    }
    const auto number = [&](int* out_number) {
      if (i < format.size() && format[i] == '*') {
        Value star;
        if (!take(&star)) return false;
        if (!star.IsIntegral()) {
          interpreter.Fail("* wants int");
          return false;
        }
        *out_number =
            static_cast<int>(std::clamp<int64_t>(star.AsInt(), -kMaxWidth - 1, kMaxWidth + 1));
        ++i;
        return true;
      }
      int parsed = 0;
      for (; i < format.size() && format[i] >= '0' && format[i] <= '9'; ++i) {
        parsed = std::min(parsed * 10 + (format[i] - '0'), kMaxWidth + 1);
      }
      *out_number = parsed;
      return true;
    };
    if (!number(&spec.width)) return Value();
    if (spec.width < 0) {
      spec.align = '<';
      spec.width = -spec.width;
    }
    if (i < format.size() && format[i] == '.') {
      ++i;
      if (!number(&spec.precision)) return Value();
      spec.precision = std::max(0, spec.precision);
    }
    if (spec.width > kMaxWidth || spec.precision > kMaxWidth)
      return fail("format width or precision is too large");
    while (i < format.size() && (format[i] == 'l' || format[i] == 'h' || format[i] == 'L')) ++i;
    if (i >= format.size()) return fail("incomplete format");
    const char type = format[i++];
    if (value.is(Type::kMissing) && !take(&value)) return Value();
    if (zero && spec.align != '<') {
      spec.align = '=';
      spec.fill = "0";
    }
    spec.type = type;
    switch (type) {
      case 's':
      case 'r':
      case 'a': {
        if (spec.align == '=') {
          spec.align = '>';
          spec.fill = " ";
        }
        const std::string text = type == 's' ? ToStr(value) : Repr(value);
        const std::string_view view(text);
        Pad(spec, '>', "",
            spec.precision < 0 ? view : view.substr(0, ByteOffset(view, spec.precision)), &out);
        break;
      }
      case 'c': {
        std::string body;
        if (value.IsString() && CodePointCount(Text(value)) == 1) {
          body = Text(value);
        } else if (value.IsIntegral() && value.AsInt() >= 0 && value.AsInt() <= 0x10FFFF) {
          AppendUtf8(static_cast<char32_t>(value.AsInt()), &body);
        } else {
          return fail("%c requires int or char");
        }
        Pad(spec, '>', "", body, &out);
        break;
      }
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': {
        const bool decimal = type == 'd' || type == 'i' || type == 'u';
        if (!value.IsIntegral() && !(decimal && value.is(Type::kFloat))) {
          return fail(Cat("%", std::string(1, type),
                          " format: ", decimal ? "a real number" : "an integer",
                          " is required, not ", TypeName(value)));
        }
        if (value.is(Type::kFloat) && !(std::fabs(value.d) < 9.2e18))
          return fail("integer outside 64 bits");
        const int64_t integer =
            value.is(Type::kFloat) ? static_cast<int64_t>(value.d) : value.AsInt();
        std::string body = InBase(Magnitude(integer), decimal ? 'd' : type);
        if (static_cast<int>(body.size()) < spec.precision)
          body.insert(0, spec.precision - body.size(), '0');
        std::string sign = SignText(integer < 0, spec.sign);
        if (spec.alternate && !decimal) sign += std::string("0") + type;
        Pad(spec, '>', sign, body, &out);
        break;
      }
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': {
        double number_value = 0;
        if (value.IsNumber()) {
          number_value = value.AsDouble();
        } else {
          return fail(Cat("must be real number, not ", TypeName(value)));
        }
        if (spec.precision < 0) spec.precision = 6;
        FormatDouble(number_value, spec, &out);
        break;
      }
      default:
        return fail(Cat("unsupported format character '", std::string(1, type), "'"));
    }
    if (!interpreter.Reserve(out.size()) || !interpreter.Step()) return Value();
  }
  const bool mapping_like = values.is(Type::kDict) || values.is(Type::kList) ||
                            values.is(Type::kUndefined) || values.is(Type::kNamespace);
  if (next < list.size() && !used_mapping && !(mapping_like && !tuple)) {
    return fail("not all arguments converted during string formatting");
  }
  return interpreter.String(std::move(out));
}

}  // namespace finetuned::jinja
