// Python's str methods over UTF-8, with Python's character classes (by ICU's Unicode data).
// Positions and widths are code points. Invalid UTF-8 never reaches these functions from JSON; each
// stray byte counts as one U+FFFD.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace finetuned::jinja {

// Reads the code point at *pos and advances *pos past it.
char32_t DecodeUtf8(std::string_view text, size_t* pos);
void AppendUtf8(char32_t code_point, std::string* out);

bool IsAscii(std::string_view text);
int64_t CodePointCount(std::string_view text);
// Byte offset of the code point with this index (clamped to the end).
size_t ByteOffset(std::string_view text, int64_t code_point_index);
std::vector<std::string_view> SplitCodePoints(std::string_view text);

bool IsSpace(char32_t c);      // str.isspace, and \s of Python's re
bool IsPrintable(char32_t c);  // str.isprintable
bool IsAlpha(char32_t c);
bool IsDecimal(char32_t c);
bool IsDigit(char32_t c);
bool IsNumeric(char32_t c);
inline bool IsAlnum(char32_t c) { return IsAlpha(c) || IsNumeric(c) || IsDigit(c) || IsDecimal(c); }
bool IsIdentifierStart(char32_t c);
bool IsIdentifierPart(char32_t c);

std::string Upper(std::string_view text);
std::string Lower(std::string_view text);
std::string Title(std::string_view text);       // str.title
std::string Capitalize(std::string_view text);  // str.capitalize
std::string SwapCase(std::string_view text);
std::string CaseFold(std::string_view text);
bool IsUpper(std::string_view text);
bool IsLower(std::string_view text);
bool IsTitle(std::string_view text);

// chars == nullptr: whitespace. Strips from the ends chosen.
std::string_view Strip(std::string_view text, const std::string* chars, bool left, bool right);

// Python's split/rsplit; separator == nullptr splits at runs of whitespace; limit < 0: no limit.
std::vector<std::string_view> Split(std::string_view text, const std::string* separator,
                                    int64_t limit);
std::vector<std::string_view> RSplit(std::string_view text, const std::string* separator,
                                     int64_t limit);
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);

std::string Replace(std::string_view text, std::string_view from, std::string_view to,
                    int64_t limit);

}  // namespace finetuned::jinja
