#include "worker/text/jinja_numbers.h"

#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "worker/text/jinja_unicode.h"

namespace finetuned::jinja {
namespace {

// Strips blanks and single underscores between digits; false on misplaced underscores.
bool CleanNumber(std::string_view text, std::string* out) {
  text = Strip(text, nullptr, true, true);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      *out += text[i];
      continue;
    }
    const bool between = i > 0 && i + 1 < text.size() &&
                         std::isalnum(static_cast<unsigned char>(text[i - 1])) &&
                         std::isalnum(static_cast<unsigned char>(text[i + 1]));
    if (!between) return false;
  }
  return !out->empty();
}

}  // namespace

bool ParseInt(std::string_view text, int base, int64_t* out) {
  std::string clean;
  if (!CleanNumber(text, &clean)) return false;
  std::string_view digits(clean);
  const bool negative = digits[0] == '-';
  if (digits[0] == '-' || digits[0] == '+') digits.remove_prefix(1);
  const char prefix =
      digits.size() > 1 && digits[0] == '0' ? static_cast<char>(std::tolower(digits[1])) : '\0';
  const int prefix_base = prefix == 'b' ? 2 : prefix == 'o' ? 8 : prefix == 'x' ? 16 : 0;
  if (prefix_base != 0 && (base == prefix_base || base == 0)) {
    base = prefix_base;
    digits.remove_prefix(2);
  }
  if (base == 0) {
    base = 10;
    if (digits.size() > 1 && digits[0] == '0' &&
        digits.find_first_not_of('0') != std::string_view::npos)
      return false;
  }
  uint64_t magnitude = 0;
  const auto result =
      std::from_chars(digits.data(), digits.data() + digits.size(), magnitude, base);
  if (result.ec != std::errc() || result.ptr != digits.data() + digits.size()) return false;
  if (magnitude > static_cast<uint64_t>(INT64_MAX)) return false;
  *out = negative ? -static_cast<int64_t>(magnitude) : static_cast<int64_t>(magnitude);
  return true;
}

bool ParseFloat(std::string_view text, double* out) {
  std::string clean;
  if (!CleanNumber(text, &clean)) return false;
  const std::string lower = Lower(clean);
  std::string_view word(lower);
  if (word[0] == '+' || word[0] == '-') word.remove_prefix(1);
  const bool named = word == "inf" || word == "infinity" || word == "nan";
  if (!named && word.find_first_not_of("0123456789.e+-") != std::string_view::npos) return false;
  if (!named && word.find_first_of("0123456789") == std::string_view::npos) return false;
  char* end = nullptr;
  *out = std::strtod(clean.c_str(), &end);
  return end == clean.c_str() + clean.size();
}

std::string FixedPoint(double value, int digits) {
  std::string buffer(static_cast<size_t>(digits) + 350, '\0');
  const int length = std::snprintf(buffer.data(), buffer.size(), "%.*f", digits, value);
  buffer.resize(static_cast<size_t>(length));
  return buffer;
}

double RoundHalfEven(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 323) return value;
  if (digits < -308) return std::copysign(0.0, value);
  // printf rounds the exact binary value, ties to even, which is what Python does.
  if (digits >= 0) return std::strtod(FixedPoint(value, static_cast<int>(digits)).c_str(), nullptr);
  const double scale = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / scale) * scale;
}

}  // namespace finetuned::jinja
