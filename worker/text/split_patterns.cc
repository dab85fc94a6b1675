#include "worker/text/split_patterns.h"

#include "worker/text/unicode.h"

namespace finetuned {
namespace {

using unicode::kLetter;
using unicode::kNewline;
using unicode::kNumber;
using unicode::kWhitespace;

constexpr uint16_t kKinds = kLetter | kNumber | kWhitespace;

// A position in the text and the properties of the code point there.
class Scanner {
 public:
  Scanner(std::string_view text, Span span)
      : text_(text.substr(0, span.end)), position_(span.begin) {
    Load();
  }

  size_t position() const { return position_; }
  bool at_end() const { return position_ >= text_.size(); }
  uint16_t properties() const { return properties_; }  // 0 at the end
  char32_t code_point() const { return code_point_; }  // 0 at the end
  char byte(size_t ahead) const {
    return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0';
  }

  void Advance() {
    position_ = next_;
    Load();
  }
  void Seek(size_t position) {
    position_ = position;
    Load();
  }
  // Past all code points with one of `bits`.
  void SkipWhile(uint16_t bits) {
    while (properties_ & bits) Advance();
  }
  // Past all code points that are neither letter, number nor space.
  void SkipOther() {
    while (!at_end() && !(properties_ & kKinds)) Advance();
  }

 private:
  void Load() {
    if (at_end()) {
      code_point_ = 0;
      properties_ = 0;
      return;
    }
    next_ = position_;
    code_point_ = unicode::DecodeUtf8(text_, next_);
    properties_ = unicode::PropertiesOf(code_point_);
  }

  const std::string_view text_;
  size_t position_;
  size_t next_ = 0;
  char32_t code_point_ = 0;
  uint16_t properties_ = 0;
};

// Length of 's 't 're 've 'm 'll 'd at the scanner's apostrophe, or 0.
size_t ContractionLength(const Scanner& scanner, bool ignore_case) {
  char first = scanner.byte(1), second = scanner.byte(2);
  if (ignore_case) {
    // U+017F, the long s, folds to s.
    if (first == '\xC5' && second == '\xBF') return 3;
    if (first >= 'A' && first <= 'Z') first = static_cast<char>(first + 32);
    if (second >= 'A' && second <= 'Z') second = static_cast<char>(second + 32);
  }
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
      (first == 'l' && second == 'l'))
    return 3;
  return 0;
}

// A run of white space from `begin`, the scanner being behind it: all of it at the end of the text,
// otherwise all but the last code point, which belongs to what follows — `\s+(?!\S)|\s+`.
void EndSpaceRun(Scanner& scanner, std::string_view text, size_t begin) {
  if (scanner.at_end()) return;
  const size_t last = unicode::PreviousCodePoint(text, scanner.position());
  if (last > begin) scanner.Seek(last);
}

void MatchGpt2(Scanner& scanner, std::string_view text) {
  const size_t begin = scanner.position();
  if (scanner.code_point() == '\'') {
    if (const size_t length = ContractionLength(scanner, false); length != 0)
      return scanner.Seek(begin + length);
  }
  if (scanner.code_point() == ' ') {
    scanner.Advance();
    if (scanner.at_end()) return;
    if (scanner.properties() & kWhitespace) {
      scanner.SkipWhile(kWhitespace);
      return EndSpaceRun(scanner, text, begin);
    }
  }
  if (scanner.properties() & kLetter) return scanner.SkipWhile(kLetter);
  if (scanner.properties() & kNumber) return scanner.SkipWhile(kNumber);
  if (scanner.properties() & kWhitespace) {
    scanner.SkipWhile(kWhitespace);
    return EndSpaceRun(scanner, text, begin);
  }
  scanner.SkipOther();
}

void MatchLlama3(Scanner& scanner, std::string_view text, int digits) {
  const size_t begin = scanner.position();
  if (scanner.code_point() == '\'') {
    if (const size_t length = ContractionLength(scanner, true); length != 0)
      return scanner.Seek(begin + length);
  }
  const uint16_t first = scanner.properties();
  if (first & kLetter) return scanner.SkipWhile(kLetter);
  if (first & kNumber) {
    for (int i = 0; i < digits && (scanner.properties() & kNumber); ++i) scanner.Advance();
    return;
  }
  const bool space = scanner.code_point() == ' ';
  scanner.Advance();
  if (!(first & kNewline) && (scanner.properties() & kLetter)) return scanner.SkipWhile(kLetter);
  if (!(first & kWhitespace) || (space && !scanner.at_end() && !(scanner.properties() & kKinds))) {
    scanner.SkipOther();
    return scanner.SkipWhile(kNewline);
  }
  // White space: up to its last line break if it has one.
  size_t after_newline = first & kNewline ? scanner.position() : 0;
  while (scanner.properties() & kWhitespace) {
    const bool newline = scanner.properties() & kNewline;
    scanner.Advance();
    if (newline) after_newline = scanner.position();
  }
  if (after_newline != 0) return scanner.Seek(after_newline);
  EndSpaceRun(scanner, text, begin);
}

}  // namespace

std::optional<SplitPattern> KnownSplitPattern(std::string_view pattern) {
  if (pattern == kGpt2Pattern) return SplitPattern::kGpt2;
  if (pattern == kLlama3Pattern) return SplitPattern::kLlama3;
  if (pattern == kQwen2Pattern) return SplitPattern::kQwen2;
  return std::nullopt;
}

void SplitByKnownPattern(SplitPattern pattern, std::string_view text, Span span,
                         std::vector<Span>& out) {
  Scanner scanner(text, span);
  while (!scanner.at_end()) {
    const size_t begin = scanner.position();
    switch (pattern) {
      case SplitPattern::kGpt2:
        MatchGpt2(scanner, text);
        break;
      case SplitPattern::kLlama3:
        MatchLlama3(scanner, text, 3);
        break;
      case SplitPattern::kQwen2:
        MatchLlama3(scanner, text, 1);
        break;
    }
    out.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(scanner.position())});
  }
}

}  // namespace finetuned
