// Text out of values: Python's "%" operator (printf formats), format specifications
// (jinja_format.cc) and str.format (jinja_braces.cc). Internal to the engine.
#pragma once

#include <string>
#include <string_view>

#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {

// format % values
Value FormatPercent(Interpreter& interpreter, const Value& format, const Value& values);

// format.format(*args, **kwargs)
Value FormatBraces(Interpreter& interpreter, std::string_view format, const Args& args);

// What format(value, spec) gives for str, int, bool and float.
bool FormatSpec(Interpreter& interpreter, const Value& value, std::string_view spec,
                std::string* out);

}  // namespace finetuned::jinja
