#include "worker/text/unicode.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <map>

namespace finetuned::unicode {
namespace {

struct PropertyRun {
  char32_t first;
  uint8_t category, script, flags;
};
struct CodePointPair {
  char32_t code_point, value;
};
struct Decomposition {
  char32_t code_point;
  uint16_t offset, length;
};
struct Composition {
  char32_t first, second, composed;
};

#include "worker/text/unicode_tables.inc"

constexpr char32_t kHangulSyllables = 0xAC00, kHangulL = 0x1100, kHangulV = 0x1161,
                   kHangulT = 0x11A7;
constexpr char32_t kHangulVCount = 21, kHangulTCount = 28, kHangulCount = 11172, kHangulLCount = 19;

uint16_t NormalizationBits(char32_t c) {
  uint16_t bits = 0;
  const bool mark = CombiningClass(c) != 0;
  for (const bool compatibility : {false, true}) {
    char32_t buffer[3];
    const CodePoints parts = Decompose(c, compatibility, buffer);
    if (mark || parts.size != 0) bits |= compatibility ? kMovesNfkd : kMovesNfd;
    char32_t composed = parts.size == 0 ? c : parts.data[0];
    for (size_t i = 1; i < parts.size && composed != 0; ++i)
      composed = Compose(composed, parts.data[i]);
    if (mark || composed != c || ComposesWithPrevious(c))
      bits |= compatibility ? kMovesNfkc : kMovesNfc;
  }
  return bits;
}

// The runs unfolded into the two-level table of PropertiesOf(); equal blocks are shared.
struct Pages {
  std::array<uint16_t, 0x1100> block_of_page{};
  std::vector<uint16_t> blocks;

  Pages() {
    // Only code points that some table mentions can move.
    std::map<char32_t, uint16_t> moves;
    const auto consider = [&moves](char32_t c) { moves.try_emplace(c, NormalizationBits(c)); };
    for (const CodePointPair& row : kCombiningClasses) consider(row.code_point);
    for (const Decomposition& row : kCanonical) consider(row.code_point);
    for (const Decomposition& row : kCompatibility) consider(row.code_point);
    for (const Composition& row : kCompositions) consider(row.second);
    for (char32_t c = kHangulV; c < kHangulT + kHangulTCount; ++c) consider(c);

    std::map<std::array<uint16_t, 256>, uint16_t> known;
    size_t run = 0;
    for (char32_t page = 0; page < 0x1100; ++page) {
      std::array<uint16_t, 256> block;
      for (char32_t i = 0; i < 256; ++i) {
        const char32_t c = page << 8 | i;
        while (run + 1 < std::size(kPropertyRuns) && kPropertyRuns[run + 1].first <= c) ++run;
        const char category = kCategoryNames[kPropertyRuns[run].category][0];
        const uint16_t flags = kPropertyRuns[run].flags;
        uint16_t bits = flags & 0x3F;
        if (flags & 1 << 6) bits |= kBertControl;
        if (flags & 1 << 7) bits |= kNonspacingMark;
        if (category == 'L') bits |= kLetter;
        if (category == 'N') bits |= kNumber;
        if (c == '\r' || c == '\n') bits |= kNewline;
        if (c >= kHangulSyllables && c < kHangulSyllables + kHangulCount)
          bits |= kMovesNfd | kMovesNfkd;
        if (const auto it = moves.find(c); it != moves.end()) bits |= it->second;
        block[i] = bits;
      }
      const auto [it, added] = known.try_emplace(block, static_cast<uint16_t>(known.size()));
      if (added) blocks.insert(blocks.end(), block.begin(), block.end());
      block_of_page[page] = it->second;
    }
  }
};

const Pages& GetPages() {
  static const Pages* const kPages = new Pages;
  return *kPages;
}

// A small value for each code point out of runs, in two levels; equal blocks are shared.
class RunTable {
 public:
  template <size_t N>
  explicit RunTable(const CodePointPair (&runs)[N]) {
    std::map<std::array<uint8_t, 256>, uint16_t> known;
    size_t run = 0;
    for (char32_t page = 0; page < 0x1100; ++page) {
      std::array<uint8_t, 256> block;
      for (char32_t i = 0; i < 256; ++i) {
        while (run + 1 < N && runs[run + 1].code_point <= (page << 8 | i)) ++run;
        block[i] = static_cast<uint8_t>(runs[run].value);
      }
      const auto [it, added] = known.try_emplace(block, static_cast<uint16_t>(known.size()));
      if (added) blocks_.insert(blocks_.end(), block.begin(), block.end());
      block_of_page_[page] = it->second;
    }
  }
  uint8_t operator[](char32_t c) const {
    if (c > 0x10FFFF) return 0;
    return blocks_[(size_t{block_of_page_[c >> 8]} << 8) | (c & 255)];
  }

 private:
  std::array<uint16_t, 0x1100> block_of_page_{};
  std::vector<uint8_t> blocks_;
};

// Hangul jamo and syllables, as bits; Unicode 16 treats five vowels of Kirat Rai alike.
enum Hangul : uint8_t { kNoHangul = 0, kL = 1, kV = 2, kT = 4, kLV = 8, kLVT = 16 };
uint8_t HangulOf(char32_t c) {
  if (c < kHangulL) return kNoHangul;
  if (c <= 0x115F || (c >= 0xA960 && c <= 0xA97C)) return kL;
  if (c <= 0x11A7 || (c >= 0xD7B0 && c <= 0xD7C6)) return kV;
  if (c <= 0x11FF || (c >= 0xD7CB && c <= 0xD7FB)) return kT;
  if (c >= kHangulSyllables && c < kHangulSyllables + kHangulCount)
    return (c - kHangulSyllables) % kHangulTCount == 0 ? kLV : kLVT;
  if (c == 0x16D63 || (c >= 0x16D67 && c <= 0x16D6A)) return kV;
  return kNoHangul;
}

template <typename T, size_t N>
const T* Find(const T (&table)[N], char32_t c) {
  const T* it = std::lower_bound(table, table + N, c,
                                 [](const T& row, char32_t key) { return row.code_point < key; });
  return it != table + N && it->code_point == c ? it : nullptr;
}

}  // namespace

namespace internal {
const uint16_t* const kBlockOfPage = GetPages().block_of_page.data();
const uint16_t* const kBlocks = GetPages().blocks.data();
}  // namespace internal

void AppendUtf8(char32_t c, std::string& out) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | c >> 6));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | c >> 12));
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | c >> 18));
    out.push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

namespace {

// Length of the well-formed sequence at p, or minus the length of the ill-formed maximal subpart.
int CheckSequence(const unsigned char* p, size_t available) {
  const unsigned char lead = p[0];
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return -1;
  unsigned char low = 0x80, high = 0xBF;  // allowed range of the second byte
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  const int length = static_cast<int>(SequenceLength(lead));
  for (int i = 1; i < length; ++i) {
    if (static_cast<size_t>(i) >= available || p[i] < low || p[i] > high) return -i;
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

}  // namespace

size_t ValidUtf8Prefix(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  size_t i = 0;
  while (i < text.size()) {
    uint64_t eight;
    if (i + 8 <= text.size() &&
        (std::memcpy(&eight, p + i, 8), (eight & 0x8080808080808080u) == 0)) {
      i += 8;
      continue;
    }
    const int length = CheckSequence(p + i, text.size() - i);
    if (length < 0) return i;
    i += static_cast<size_t>(length);
  }
  return i;
}

size_t IllFormedLength(std::string_view text) {
  return static_cast<size_t>(
      -(CheckSequence(reinterpret_cast<const unsigned char*>(text.data()), text.size())));
}

std::string ToValidUtf8(std::string_view bytes) {
  std::string out;
  while (true) {
    const size_t valid = ValidUtf8Prefix(bytes);
    out.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) return out;
    out.append("\xEF\xBF\xBD");
    bytes.remove_prefix(IllFormedLength(bytes));
  }
}

std::pair<char32_t, char32_t> ToLower(char32_t c) {
  if (c < 0x80) return {c >= 'A' && c <= 'Z' ? c + 32 : c, 0};
  if (c == 0x130) return {'i', 0x307};
  const CodePointPair* row = Find(kLowercase, c);
  return {row == nullptr ? c : row->value, 0};
}

uint8_t CombiningClass(char32_t c) {
  if (c < 0x300) return 0;
  const CodePointPair* row = Find(kCombiningClasses, c);
  return row == nullptr ? 0 : static_cast<uint8_t>(row->value);
}

CodePoints Decompose(char32_t c, bool compatibility, char32_t (&buffer)[3]) {
  if (c < 0xA0) return {nullptr, 0};
  if (c >= kHangulSyllables && c < kHangulSyllables + kHangulCount) {
    const char32_t index = c - kHangulSyllables;
    buffer[0] = kHangulL + index / (kHangulVCount * kHangulTCount);
    buffer[1] = kHangulV + index % (kHangulVCount * kHangulTCount) / kHangulTCount;
    buffer[2] = kHangulT + index % kHangulTCount;
    return {buffer, buffer[2] == kHangulT ? size_t{2} : size_t{3}};
  }
  const Decomposition* row = compatibility ? Find(kCompatibility, c) : nullptr;
  if (row == nullptr) row = Find(kCanonical, c);
  if (row == nullptr) return {nullptr, 0};
  return {kDecompositionPool + row->offset, row->length};
}

char32_t Compose(char32_t first, char32_t second) {
  if (first >= kHangulL && first < kHangulL + kHangulLCount && second >= kHangulV &&
      second < kHangulV + kHangulVCount) {
    return kHangulSyllables +
           ((first - kHangulL) * kHangulVCount + (second - kHangulV)) * kHangulTCount;
  }
  if (first >= kHangulSyllables && first < kHangulSyllables + kHangulCount &&
      (first - kHangulSyllables) % kHangulTCount == 0 && second > kHangulT &&
      second < kHangulT + kHangulTCount) {
    return first + (second - kHangulT);
  }
  const Composition* end = std::end(kCompositions);
  const Composition* it =
      std::lower_bound(std::begin(kCompositions), end, std::pair(first, second),
                       [](const Composition& row, const std::pair<char32_t, char32_t>& key) {
                         return std::pair(row.first, row.second) < key;
                       });
  return it != end && it->first == first && it->second == second ? it->composed : 0;
}

bool ComposesWithPrevious(char32_t c) {
  if (c >= kHangulV && c < kHangulV + kHangulVCount) return true;
  if (c > kHangulT && c < kHangulT + kHangulTCount) return true;
  static const std::vector<char32_t>* const kSeconds = [] {
    auto* seconds = new std::vector<char32_t>;
    for (const Composition& row : kCompositions) seconds->push_back(row.second);
    std::sort(seconds->begin(), seconds->end());
    return seconds;
  }();
  return std::binary_search(kSeconds->begin(), kSeconds->end(), c);
}

uint8_t GraphemePropertiesOf(char32_t c) {
  static const RunTable* const kTable = new RunTable(kGraphemeRuns);
  return (*kTable)[c];
}

uint8_t ScriptClassOf(char32_t c) {
  static const RunTable* const kTable = new RunTable(kUnicodeScriptRuns);
  return (*kTable)[c];
}

size_t GraphemeEnd(std::string_view text, size_t begin) {
  constexpr char32_t kZwj = 0x200D;
  size_t end = begin;
  char32_t previous = 0;
  uint8_t before = 0;  // properties of `previous`
  bool pictograph = false, pictograph_zwj = false;
  bool consonant = false, linked = false;
  while (end < text.size()) {
    size_t next = end;
    const char32_t c = DecodeUtf8(text, next);
    const uint8_t bits = GraphemePropertiesOf(c);
    if (end != begin) {
      if (previous == '\r' && c == '\n') return next;
      if ((before | bits) & kGraphemeControl) break;
      const uint8_t left = HangulOf(previous), right = HangulOf(c);
      const bool hangul = (left == kL && right & (kL | kV | kLV | kLVT)) ||
                          (left & (kLV | kV) && right & (kV | kT)) ||
                          (left & (kLVT | kT) && right == kT);
      if (!(bits & kJoinsPrevious || before & kGraphemePrepend || hangul ||
            (pictograph_zwj && bits & kPictographic) ||
            (consonant && linked && bits & kConsonant))) {
        break;
      }
    }
    pictograph_zwj = pictograph && c == kZwj;
    pictograph = bits & kPictographic || (pictograph && bits & kExtendsPictograph);
    linked = !(bits & kConsonant) && consonant &&
             (bits & kLinker || (linked && bits & kExtendsConjunct));
    consonant = bits & kConsonant || (consonant && bits & (kLinker | kExtendsConjunct));
    previous = c;
    before = bits;
    end = next;
  }
  return end;
}

std::optional<std::vector<std::pair<char32_t, char32_t>>> PropertyRanges(std::string_view name) {
  std::string key;  // property names ignore case, spaces, hyphens and underscores
  for (char c : name) {
    if (c != ' ' && c != '_' && c != '-')
      key.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  }
  static const std::map<std::string_view, std::string_view> kLongNames = {
      {"letter", "l"},          {"mark", "m"},      {"number", "n"}, {"punctuation", "p"},
      {"symbol", "s"},          {"separator", "z"}, {"other", "c"},  {"uppercaseletter", "lu"},
      {"lowercaseletter", "ll"}};
  if (const auto it = kLongNames.find(key); it != kLongNames.end()) key = it->second;
  const auto equals = [&key](std::string_view other, size_t length) {
    return key.size() == length &&
           std::equal(key.begin(), key.end(), other.begin(), [](char a, char b) {
             return a == static_cast<char>(std::tolower(static_cast<unsigned char>(b)));
           });
  };
  std::array<bool, std::size(kCategoryNames)> category{};
  std::array<bool, std::size(kScriptNames)> script{};
  bool known = key == "word";
  for (size_t i = 0; i < std::size(kCategoryNames); ++i) {
    category[i] = key == "digit" ? std::string_view(kCategoryNames[i]) == "Nd"
                                 : equals(kCategoryNames[i], 1) || equals(kCategoryNames[i], 2);
    known |= category[i];
  }
  for (size_t i = 1; i < std::size(kScriptNames); ++i) {
    script[i] = equals(kScriptNames[i], std::strlen(kScriptNames[i]));
    known |= script[i];
  }
  if (!known) return std::nullopt;
  std::vector<std::pair<char32_t, char32_t>> ranges;
  for (size_t i = 0; i < std::size(kPropertyRuns); ++i) {
    const PropertyRun& run = kPropertyRuns[i];
    if (!(category[run.category] || script[run.script] ||
          (key == "word" && (run.flags & kRegexWord))))
      continue;
    const char32_t last =
        (i + 1 < std::size(kPropertyRuns) ? kPropertyRuns[i + 1].first : 0x110000) - 1;
    if (!ranges.empty() && ranges.back().second + 1 == run.first) {
      ranges.back().second = last;
    } else {
      ranges.emplace_back(run.first, last);
    }
  }
  return ranges;
}

}  // namespace finetuned::unicode
