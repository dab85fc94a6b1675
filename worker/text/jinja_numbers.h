// Numbers from text and to text, and rounding, as Python does them. Internal to the engine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace finetuned::jinja {

// int(text, base) and float(text): false where Python raises ValueError.
bool ParseInt(std::string_view text, int base, int64_t* out);
bool ParseFloat(std::string_view text, double* out);

// Python's round(value, digits) for floats: to even at exact ties, correct in decimal.
double RoundHalfEven(double value, int64_t digits);

// `value` with exactly `digits` decimals.
std::string FixedPoint(double value, int digits);

}  // namespace finetuned::jinja
