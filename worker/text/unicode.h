// Code points, UTF-8 and the character properties that Hugging Face `tokenizers` applies.
//
// The data (unicode_tables.inc) is measured on the PyPI package, not taken from a Unicode library:
// its parts follow different Unicode versions, and token ids depend on them. All functions are pure
// and thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finetuned::unicode {

// Bits of PropertiesOf().
enum Property : uint16_t {
  kRustNumeric = 1 << 0,  // char::is_numeric: Digits pre-tokenizer
  kPunctuation = 1 << 1,  // Punctuation pre-tokenizer
  kWhitespace = 1 << 2,   // White_Space: \s everywhere
  kRustWord = 1 << 3,     // \w of Rust's regex engine: Whitespace pre-tokenizer, single_word tokens
  kCombiningMark = 1 << 4,  // removed by StripAccents
  kRegexWord = 1 << 5,      // \w of Oniguruma inside brackets
  kLetter = 1 << 6,         // \p{L} of Oniguruma
  kNumber = 1 << 7,         // \p{N} of Oniguruma
  kNewline = 1 << 8,        // \r or \n
  // Not stable under the normalization form: a stretch around it has to be normalized.
  kMovesNfd = 1 << 9,
  kMovesNfkd = 1 << 10,
  kMovesNfc = 1 << 11,
  kMovesNfkc = 1 << 12,
  kBertControl = 1 << 13,     // removed by BertNormalizer's clean_text
  kNonspacingMark = 1 << 14,  // removed by BertNormalizer's strip_accents, after NFD
};

namespace internal {
extern const uint16_t* const kBlockOfPage;  // page (code point >> 8) → block
extern const uint16_t* const kBlocks;       // [block][code point & 255] → Property bits
}  // namespace internal

// Property bits of a code point; 0 above U+10FFFF.
inline uint16_t PropertiesOf(char32_t c) {
  if (c > 0x10FFFF) return 0;
  return internal::kBlocks[(size_t{internal::kBlockOfPage[c >> 8]} << 8) | (c & 255)];
}

// Reads the code point at `position` of well-formed UTF-8 and moves past it.
inline char32_t DecodeUtf8(std::string_view text, size_t& position) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data()) + position;
  if (p[0] < 0x80) {
    position += 1;
    return p[0];
  }
  if (p[0] < 0xE0) {
    position += 2;
    return (char32_t{p[0]} & 0x1F) << 6 | (p[1] & 0x3F);
  }
  if (p[0] < 0xF0) {
    position += 3;
    return (char32_t{p[0]} & 0x0F) << 12 | (char32_t{p[1]} & 0x3F) << 6 | (p[2] & 0x3F);
  }
  position += 4;
  return (char32_t{p[0]} & 0x07) << 18 | (char32_t{p[1]} & 0x3F) << 12 |
         (char32_t{p[2]} & 0x3F) << 6 | (p[3] & 0x3F);
}

// Start of the code point that ends at `position` (> 0) of well-formed UTF-8.
inline size_t PreviousCodePoint(std::string_view text, size_t position) {
  do {
    --position;
  } while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xC0) == 0x80);
  return position;
}

// Bytes in the UTF-8 sequence that starts with `lead`.
inline size_t SequenceLength(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

void AppendUtf8(char32_t c, std::string& out);

// Length of the longest well-formed prefix of `text`; text.size() when all of it is well-formed.
size_t ValidUtf8Prefix(std::string_view text);

// Bytes of the ill-formed subsequence at the start of `text` that one U+FFFD stands for (Unicode's
// "maximal subpart", as Rust's String::from_utf8_lossy). REQUIRES: text is not empty and starts
// with an ill-formed sequence.
size_t IllFormedLength(std::string_view text);

// Every ill-formed subsequence replaced by U+FFFD.
std::string ToValidUtf8(std::string_view bytes);

// Lower case of one code point, without context: one or two code points.
std::pair<char32_t, char32_t> ToLower(char32_t c);

// Canonical combining class; 0 for starters.
uint8_t CombiningClass(char32_t c);

// Full decomposition, Hangul included: empty when `c` decomposes to itself. `buffer` holds Hangul's
// result.
struct CodePoints {
  const char32_t* data;
  size_t size;
};
CodePoints Decompose(char32_t c, bool compatibility, char32_t (&buffer)[3]);

// The canonical composition of a pair, Hangul included; 0 when there is none.
char32_t Compose(char32_t first, char32_t second);

// True when some pair composes with `c` as its second part.
bool ComposesWithPrevious(char32_t c);

// What a code point does in grapheme clusters: bits of GraphemePropertiesOf(). Measured only as far
// as clusters of up to 5 bytes tell, see unicode_tables.py.
enum GraphemeProperty : uint8_t {
  kGraphemeControl = 1 << 0,  // always a cluster of its own
  kJoinsPrevious = 1 << 1,    // Extend, ZWJ, SpacingMark
  kGraphemePrepend = 1 << 2,  // joins what follows
  kPictographic = 1 << 3,
  kExtendsPictograph = 1 << 4,  // may stand between a pictograph and ZWJ
  kConsonant = 1 << 5,          // of a conjunct, as kLinker and kExtendsConjunct
  kLinker = 1 << 6,
  kExtendsConjunct = 1 << 7,
};
uint8_t GraphemePropertiesOf(char32_t c);

// End of the extended grapheme cluster (Unicode Standard Annex 29) that begins at `begin`, but each
// regional indicator is a cluster. REQUIRES: `text` is well-formed, begin < text.size().
size_t GraphemeEnd(std::string_view text, size_t begin);

// Class of a code point for the pre-tokenizer UnicodeScripts, which cuts between different ones; 0
// goes with any.
uint8_t ScriptClassOf(char32_t c);

// Code point ranges [first, last] of a property as Oniguruma knows it under \p{name}: a general
// category ("L", "Lu", "Letter" …), one of the scripts in the table, "word" (\w) or "digit" (\d).
// Nothing when the table does not hold it.
std::optional<std::vector<std::pair<char32_t, char32_t>>> PropertyRanges(std::string_view name);

}  // namespace finetuned::unicode
