// Text out of values: Python's "%" operator, str.format, number formats, HTML escapes. Internal to
// the engine.
#pragma once

#include <string>
#include <string_view>

#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {

// a op b for two numbers with Python's rules.
Value Arithmetic(Interpreter& interpreter, Op op, const Value& a, const Value& b);

// format % values
Value FormatPercent(Interpreter& interpreter, const Value& format, const Value& values);

// format.format(*args, **kwargs)
Value FormatBraces(Interpreter& interpreter, std::string_view format, const Args& args);

// What format(value, spec) gives for str, int, bool and float.
bool FormatSpec(Interpreter& interpreter, const Value& value, std::string_view spec,
                std::string* out);

// & < > ' " as entities, as markupsafe writes them.
std::string EscapeHtml(std::string_view text);

// int(text, base) and float(text): false where Python raises ValueError.
bool ParseInt(std::string_view text, int base, int64_t* out);
bool ParseFloat(std::string_view text, double* out);

// Python's round(value, digits) for floats: to even at exact ties, correct in decimal.
double RoundHalfEven(double value, int64_t digits);

// `value` with exactly `digits` decimals.
std::string FixedPoint(double value, int digits);

}  // namespace finetuned::jinja
