#include "worker/text/jinja_unicode.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <limits>

namespace finetuned::jinja {
namespace {

bool IsLineBreak(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

bool IsCased(char32_t c) { return u_hasBinaryProperty(c, UCHAR_CASED); }

std::string ToUtf8(const icu::UnicodeString& text) {
  std::string out;
  text.toUTF8String(out);
  return out;
}

icu::UnicodeString FromUtf8(std::string_view text) {
  return icu::UnicodeString::fromUTF8(
      icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

// The full mapping of one character: "ß" becomes "SS" in upper case, "Ss" in title case.
void AppendTitle(char32_t c, std::string* out) {
  icu::UnicodeString one(static_cast<UChar32>(c));
  *out += ToUtf8(one.toTitle(nullptr, icu::Locale::getRoot(), U_TITLECASE_NO_LOWERCASE));
}

// Python lowers character by character but looks around for the final sigma; ICU does the same on
// whole strings.
void AppendLowerRun(std::string_view text, size_t begin, size_t end, std::string* out) {
  *out += Lower(text.substr(begin, end - begin));
}

}  // namespace

char32_t DecodeUtf8(std::string_view text, size_t* pos) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const size_t i = *pos;
  const unsigned char lead = byte(i);
  if (lead < 0x80) {
    *pos = i + 1;
    return lead;
  }
  const int extra = lead >= 0xF0 && lead < 0xF8 ? 3 : lead >= 0xE0 ? 2 : lead >= 0xC2 ? 1 : 0;
  if (extra == 0 || lead >= 0xF8 || i + extra >= text.size()) {
    *pos = i + 1;
    return 0xFFFD;
  }
  char32_t c = lead & (0x3F >> extra);
  for (int k = 1; k <= extra; ++k) {
    if ((byte(i + k) & 0xC0) != 0x80) {
      *pos = i + 1;
      return 0xFFFD;
    }
    c = (c << 6) | (byte(i + k) & 0x3F);
  }
  *pos = i + extra + 1;
  return c;
}

void AppendUtf8(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | (c >> 6)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | (c >> 12)));
    out->push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | (c >> 18)));
    out->push_back(static_cast<char>(0x80 | ((c >> 12) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

int64_t CodePointCount(std::string_view text) {
  int64_t count = 0;
  for (size_t pos = 0; pos < text.size(); ++count) DecodeUtf8(text, &pos);
  return count;
}

size_t ByteOffset(std::string_view text, int64_t code_point_index) {
  size_t pos = 0;
  for (; code_point_index > 0 && pos < text.size(); --code_point_index) DecodeUtf8(text, &pos);
  return pos;
}

std::vector<std::string_view> SplitCodePoints(std::string_view text) {
  std::vector<std::string_view> out;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    DecodeUtf8(text, &pos);
    out.push_back(text.substr(begin, pos - begin));
  }
  return out;
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

bool IsPrintable(char32_t c) {
  if (c == ' ') return true;
  switch (u_charType(c)) {
    case U_UNASSIGNED:
    case U_CONTROL_CHAR:
    case U_FORMAT_CHAR:
    case U_PRIVATE_USE_CHAR:
    case U_SURROGATE:
    case U_SPACE_SEPARATOR:
    case U_LINE_SEPARATOR:
    case U_PARAGRAPH_SEPARATOR:
      return false;
    default:
      return true;
  }
}

bool IsAlpha(char32_t c) { return (U_GET_GC_MASK(c) & U_GC_L_MASK) != 0; }
bool IsDecimal(char32_t c) { return u_charType(c) == U_DECIMAL_DIGIT_NUMBER; }
bool IsDigit(char32_t c) {
  const int type = u_getIntPropertyValue(c, UCHAR_NUMERIC_TYPE);
  return type == U_NT_DECIMAL || type == U_NT_DIGIT;
}
bool IsNumeric(char32_t c) { return u_getIntPropertyValue(c, UCHAR_NUMERIC_TYPE) != U_NT_NONE; }
bool IsIdentifierStart(char32_t c) { return c == '_' || u_hasBinaryProperty(c, UCHAR_XID_START); }
bool IsIdentifierPart(char32_t c) { return c == '_' || u_hasBinaryProperty(c, UCHAR_XID_CONTINUE); }

std::string Upper(std::string_view text) {
  if (IsAscii(text)) {
    std::string out(text);
    for (char& c : out) {
      if (c >= 'a' && c <= 'z') c -= 32;
    }
    return out;
  }
  return ToUtf8(FromUtf8(text).toUpper(icu::Locale::getRoot()));
}

std::string Lower(std::string_view text) {
  if (IsAscii(text)) {
    std::string out(text);
    for (char& c : out) {
      if (c >= 'A' && c <= 'Z') c += 32;
    }
    return out;
  }
  return ToUtf8(FromUtf8(text).toLower(icu::Locale::getRoot()));
}

std::string Title(std::string_view text) {
  std::string out;
  bool in_word = false;
  size_t run = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = DecodeUtf8(text, &pos);
    if (in_word && IsCased(c)) continue;
    AppendLowerRun(text, run, begin, &out);
    if (!in_word) {
      AppendTitle(c, &out);
      run = pos;
    } else {
      run = begin;
    }
    in_word = IsCased(c);
  }
  AppendLowerRun(text, std::min(run, text.size()), text.size(), &out);
  return out;
}

std::string Capitalize(std::string_view text) {
  if (text.empty()) return "";
  size_t pos = 0;
  const char32_t first = DecodeUtf8(text, &pos);
  std::string out;
  AppendTitle(first, &out);
  return out + Lower(text.substr(pos));
}

std::string SwapCase(std::string_view text) {
  std::string out;
  for (std::string_view c : SplitCodePoints(text)) {
    size_t pos = 0;
    const char32_t code = DecodeUtf8(c, &pos);
    out += u_isUUppercase(code) ? Lower(c) : u_isULowercase(code) ? Upper(c) : std::string(c);
  }
  return out;
}

std::string CaseFold(std::string_view text) { return ToUtf8(FromUtf8(text).foldCase()); }

bool IsUpper(std::string_view text) {
  bool cased = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = DecodeUtf8(text, &pos);
    if (u_isULowercase(c) || u_charType(c) == U_TITLECASE_LETTER) return false;
    cased = cased || u_isUUppercase(c);
  }
  return cased;
}

bool IsLower(std::string_view text) {
  bool cased = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = DecodeUtf8(text, &pos);
    if (u_isUUppercase(c) || u_charType(c) == U_TITLECASE_LETTER) return false;
    cased = cased || u_isULowercase(c);
  }
  return cased;
}

bool IsTitle(std::string_view text) {
  bool cased = false;
  bool previous_cased = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = DecodeUtf8(text, &pos);
    if (u_isUUppercase(c) || u_charType(c) == U_TITLECASE_LETTER) {
      if (previous_cased) return false;
      previous_cased = cased = true;
    } else if (u_isULowercase(c)) {
      if (!previous_cased) return false;
      cased = true;
    } else {
      previous_cased = false;
    }
  }
  return cased;
}

std::string_view Strip(std::string_view text, const std::string* chars, bool left, bool right) {
  std::u32string set;
  if (chars != nullptr) {
    for (size_t pos = 0; pos < chars->size();) set.push_back(DecodeUtf8(*chars, &pos));
  }
  const auto strippable = [&](char32_t c) {
    return chars == nullptr ? IsSpace(c) : set.find(c) != std::u32string::npos;
  };
  size_t begin = 0;
  size_t end = text.size();
  while (left && begin < end) {
    size_t next = begin;
    if (!strippable(DecodeUtf8(text, &next))) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t last = end - 1;
    while (last > begin && (text[last] & 0xC0) == 0x80) --last;
    size_t next = last;
    if (!strippable(DecodeUtf8(text, &next))) break;
    end = last;
  }
  return text.substr(begin, end - begin);
}

std::vector<std::string_view> Split(std::string_view text, const std::string* separator,
                                    int64_t limit) {
  if (limit < 0) limit = std::numeric_limits<int64_t>::max();
  std::vector<std::string_view> out;
  if (separator != nullptr) {
    size_t begin = 0;
    for (; limit > 0; --limit) {
      const size_t at = text.find(*separator, begin);
      if (at == std::string_view::npos) break;
      out.push_back(text.substr(begin, at - begin));
      begin = at + separator->size();
    }
    out.push_back(text.substr(begin));
    return out;
  }
  text = Strip(text, nullptr, true, false);
  while (!text.empty()) {
    if (limit-- == 0) {
      out.push_back(Strip(text, nullptr, false, true));
      return out;
    }
    size_t pos = 0;
    size_t end = 0;
    while (pos < text.size()) {
      end = pos;
      if (IsSpace(DecodeUtf8(text, &pos))) break;
      end = pos;
    }
    out.push_back(text.substr(0, end));
    text = Strip(text.substr(end), nullptr, true, false);
  }
  return out;
}

std::vector<std::string_view> RSplit(std::string_view text, const std::string* separator,
                                     int64_t limit) {
  if (limit < 0) return Split(text, separator, limit);
  std::vector<std::string_view> out;
  if (separator != nullptr) {
    for (; limit > 0; --limit) {
      const size_t at = text.rfind(*separator);
      if (at == std::string_view::npos) break;
      out.push_back(text.substr(at + separator->size()));
      text = text.substr(0, at);
    }
    out.push_back(text);
  } else {
    text = Strip(text, nullptr, false, true);
    while (!text.empty()) {
      if (limit-- == 0) {
        out.push_back(Strip(text, nullptr, true, false));
        break;
      }
      size_t word = text.size();
      while (word > 0) {
        size_t start = word - 1;
        while (start > 0 && (text[start] & 0xC0) == 0x80) --start;
        size_t pos = start;
        if (IsSpace(DecodeUtf8(text, &pos))) break;
        word = start;
      }
      out.push_back(text.substr(word));
      text = Strip(text.substr(0, word), nullptr, false, true);
    }
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> out;
  size_t begin = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t at = pos;
    const char32_t c = DecodeUtf8(text, &pos);
    if (!IsLineBreak(c)) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    out.push_back(text.substr(begin, (keep_ends ? pos : at) - begin));
    begin = pos;
  }
  if (begin < text.size()) out.push_back(text.substr(begin));
  return out;
}

std::string Replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit) {
  if (limit < 0) limit = std::numeric_limits<int64_t>::max();
  std::string out;
  if (from.empty()) {
    // Python inserts before every character and at the end.
    size_t pos = 0;
    for (; limit > 0; --limit) {
      out += to;
      if (pos >= text.size()) return out;
      const size_t begin = pos;
      DecodeUtf8(text, &pos);
      out += text.substr(begin, pos - begin);
    }
    out += text.substr(pos);
    return out;
  }
  size_t begin = 0;
  for (; limit > 0; --limit) {
    const size_t at = text.find(from, begin);
    if (at == std::string_view::npos) break;
    out += text.substr(begin, at - begin);
    out += to;
    begin = at + from.size();
  }
  out += text.substr(begin);
  return out;
}

}  // namespace finetuned::jinja
