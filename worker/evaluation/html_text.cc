#include "worker/evaluation/html_text.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace finetuned {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the well-formed UTF-8 sequence at the start of `text` (Unicode standard, table 3-7), or
// 0.
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  size_t length = 0;
  unsigned low = 0x80, high = 0xBF;  // bounds of the second byte
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if ((first & 0xF0) == 0xE0) {
    length = 3;
    if (first == 0xE0) low = 0xA0;   // overlong
    if (first == 0xED) high = 0x9F;  // surrogates
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;  // beyond U+10FFFF
  } else {
    return 0;
  }
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  return length;
}

bool IsXmlCharacter(std::string_view sequence) {
  if (sequence.size() == 1) {
    const unsigned char c = static_cast<unsigned char>(sequence[0]);
    return c == '\t' || c == '\n' || c == '\r' || (c >= 0x20 && c != 0x7F);
  }
  return sequence != "\xEF\xBF\xBE" && sequence != "\xEF\xBF\xBF";  // U+FFFE, U+FFFF
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  while (!text.empty()) {
    const size_t length = SequenceLength(text);
    const std::string_view sequence = text.substr(0, length == 0 ? 1 : length);
    text.remove_prefix(sequence.size());
    if (length == 0 || !IsXmlCharacter(sequence)) {
      out += kReplacement;
    } else if (sequence == "&") {
      out += "&amp;";
    } else if (sequence == "<") {
      out += "&lt;";
    } else if (sequence == ">") {
      out += "&gt;";
    } else if (sequence == "\"") {
      out += "&quot;";
    } else if (sequence == "'") {
      out += "&#39;";
    } else {
      out += sequence;
    }
  }
  return out;
}

std::string ShortenText(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return std::string(text);
  size_t end = max_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return absl::StrCat(std::string(text.substr(0, end)), "… (",
                      GroupedCount(static_cast<int64_t>(text.size() - end)), " bytes more)");
}

std::string GroupedCount(int64_t count) {
  std::string digits = absl::StrCat(count);
  const std::ptrdiff_t first = count < 0 ? 1 : 0;
  for (std::ptrdiff_t at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > first; at -= 3) {
    digits.insert(static_cast<size_t>(at), 1, ',');
  }
  return digits;
}

std::string ShortNumber(double value, int digits) {
  if (!std::isfinite(value)) return "–";
  std::string text;
  if (std::abs(value) >= 1000 && std::abs(value) < 1e15) {
    text = GroupedCount(std::llround(value));
  } else {
    text = absl::StrFormat("%.*g", digits, value);
    // "2e-04" → "2e-4", "1e+20" → "1e20"
    const size_t e = text.find('e');
    if (e != std::string::npos) {
      const bool negative = text[e + 1] == '-';
      size_t at = e + 2;
      while (at + 1 < text.size() && text[at] == '0') ++at;
      text = absl::StrCat(text.substr(0, e + 1), negative ? "-" : "", text.substr(at));
    }
  }
  return absl::StrReplaceAll(text, {{"-", "−"}});
}

std::string MeasuredNumber(double value) {
  const double size = std::abs(value);
  if (!(size >= 1e-3 && size < 999.95)) return ShortNumber(value);
  const int decimals = size < 9.9995 ? 3 : size < 99.995 ? 2 : 1;
  return absl::StrReplaceAll(absl::StrFormat("%.*f", decimals, value), {{"-", "−"}});
}

std::string PercentChange(double before, double after) {
  const double percent = 100 * (after / before - 1);
  if (!std::isfinite(percent)) return "–";
  if (std::abs(percent) >= 1000) return absl::StrFormat("× %s", ShortNumber(after / before, 3));
  return absl::StrReplaceAll(absl::StrFormat("%+.1f %%", percent), {{"-", "−"}});
}

std::string BytesText(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes) / 1024;
  int unit = 0;
  for (; value >= 1024 && unit < 5; ++unit) value /= 1024;
  return absl::StrFormat("%.*f %s", value < 10 ? 2 : value < 100 ? 1 : 0, value, kUnits[unit]);
}

std::string SecondsText(double seconds) {
  if (!(seconds >= 0) || seconds > 1e10) return "–";
  if (seconds < 59.95) return absl::StrFormat(seconds < 9.995 ? "%.2f s" : "%.1f s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return absl::StrFormat("%d min %02d s", whole / 60, whole % 60);
  return absl::StrFormat("%s h %02d min", GroupedCount(whole / 3600), whole / 60 % 60);
}

}  // namespace finetuned
