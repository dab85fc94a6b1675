#include "worker/text/normalizers.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/text/byte_level.h"
#include "worker/text/chars_map.h"
#include "worker/text/json_fields.h"
#include "worker/text/pattern.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

constexpr int kMaxDepth =
    32;  // of sequences in sequences; a hostile file must not exhaust the stack
constexpr std::string_view kSupported =
    "BertNormalizer, NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Nmt, Precompiled, "
    "Prepend, Replace, ByteLevel, Sequence";

// NFC, NFD, NFKC, NFKD (Unicode Standard Annex 15). Only stretches that may change are rewritten.
class UnicodeForm : public Normalizer {
 public:
  UnicodeForm(bool compose, bool compatibility)
      : compose_(compose),
        compatibility_(compatibility),
        moves_(compose ? (compatibility ? unicode::kMovesNfkc : unicode::kMovesNfc)
                       : (compatibility ? unicode::kMovesNfkd : unicode::kMovesNfd)) {}

  void Apply(AlignedText& text) const override {
    const std::string_view in = text.text();
    AlignedText out;
    bool changed = false;
    uint32_t copied = 0;   // everything before is in `out`
    uint32_t starter = 0;  // start of the last code point that nothing before combines with
    for (size_t i = 0; i < in.size();) {
      if (static_cast<unsigned char>(in[i]) < 0x80) {
        starter = static_cast<uint32_t>(i++);
        continue;
      }
      const auto at = static_cast<uint32_t>(i);
      const char32_t c = unicode::DecodeUtf8(in, i);
      if (!(unicode::PropertiesOf(c) & moves_)) {
        starter = at;
        continue;
      }
      // The stretch from the last boundary to the next one is normalized as a whole.
      const uint32_t begin = IsBoundary(c) ? at : starter;
      size_t end = i;
      while (end < in.size()) {
        size_t next = end;
        if (IsBoundary(unicode::DecodeUtf8(in, next))) break;
        end = next;
      }
      const std::string normalized = Normalize(in.substr(begin, end - begin));
      if (normalized != in.substr(begin, end - begin)) {
        if (!changed) out = AlignedText::Rewrite(text);
        changed = true;
        out.AppendCopy(text, copied, begin);
        out.AppendMapped(text, begin, static_cast<uint32_t>(end), normalized);
        copied = static_cast<uint32_t>(end);
      }
      i = end;
      starter = static_cast<uint32_t>(end);
    }
    if (!changed) return;
    out.AppendCopy(text, copied, text.size());
    text = std::move(out);
  }

 private:
  // True when nothing after a boundary interacts with anything before it: `c`, decomposed, begins
  // with a starter that composes with nothing before it.
  bool IsBoundary(char32_t c) const {
    char32_t buffer[3];
    const unicode::CodePoints parts = unicode::Decompose(c, compatibility_, buffer);
    const char32_t first = parts.size == 0 ? c : parts.data[0];
    return unicode::CombiningClass(first) == 0 &&
           !(compose_ && unicode::ComposesWithPrevious(first));
  }

  std::string Normalize(std::string_view stretch) const {
    std::vector<std::pair<uint8_t, char32_t>> points;  // (combining class, code point)
    for (size_t i = 0; i < stretch.size();) {
      const char32_t c = unicode::DecodeUtf8(stretch, i);
      char32_t buffer[3];
      const unicode::CodePoints parts = unicode::Decompose(c, compatibility_, buffer);
      if (parts.size == 0) points.emplace_back(unicode::CombiningClass(c), c);
      for (size_t k = 0; k < parts.size; ++k) {
        points.emplace_back(unicode::CombiningClass(parts.data[k]), parts.data[k]);
      }
    }
    // Canonical order: marks between two starters sorted by class, equal classes in their order.
    for (auto run = points.begin(); run != points.end();) {
      if (run->first == 0) {
        ++run;
        continue;
      }
      const auto end =
          std::find_if(run, points.end(), [](const auto& point) { return point.first == 0; });
      std::stable_sort(run, end, [](const auto& a, const auto& b) { return a.first < b.first; });
      run = end;
    }
    if (compose_) ComposeInPlace(points);
    std::string out;
    for (const auto& point : points) unicode::AppendUtf8(point.second, out);
    return out;
  }

  static void ComposeInPlace(std::vector<std::pair<uint8_t, char32_t>>& points) {
    size_t kept = 0;
    size_t starter = 0;
    bool have_starter = false;
    for (const auto& point : points) {
      // Blocked when a kept mark of the same or a higher class, or another starter, stands between.
      const bool adjacent = have_starter && kept == starter + 1;
      const bool blocked =
          !have_starter ||
          (!adjacent && (points[kept - 1].first == 0 || points[kept - 1].first >= point.first));
      if (!blocked) {
        if (const char32_t composed = unicode::Compose(points[starter].second, point.second);
            composed != 0) {
          points[starter].second = composed;
          continue;
        }
      }
      if (point.first == 0) {
        starter = kept;
        have_starter = true;
      }
      points[kept++] = point;
    }
    points.resize(kept);
  }

  const bool compose_, compatibility_;
  const uint16_t moves_;  // the property bit of code points that this form may change
};

// Rewrites `text` character by character: `replace(c, out)` says whether `c` is to be replaced and
// appends what by (nothing to remove it).
template <typename Replace>
void ReplaceCharacters(AlignedText& text, Replace&& replace) {
  const std::string_view in = text.text();
  AlignedText out;
  bool changed = false;
  uint32_t copied = 0;  // everything before is in `out`
  std::string replacement;
  for (size_t i = 0; i < in.size();) {
    const auto at = static_cast<uint32_t>(i);
    replacement.clear();
    if (!replace(unicode::DecodeUtf8(in, i), replacement)) continue;
    if (!changed) out = AlignedText::Rewrite(text);
    changed = true;
    out.AppendCopy(text, copied, at);
    out.AppendMapped(text, at, static_cast<uint32_t>(i), replacement);
    copied = static_cast<uint32_t>(i);
  }
  if (!changed) return;
  out.AppendCopy(text, copied, text.size());
  text = std::move(out);
}

class Lowercase : public Normalizer {
 public:
  void Apply(AlignedText& text) const override {
    ReplaceCharacters(text, [](char32_t c, std::string& out) {
      const auto [first, second] = unicode::ToLower(c);
      if (first == c) return false;
      unicode::AppendUtf8(first, out);
      if (second != 0) unicode::AppendUtf8(second, out);
      return true;
    });
  }
};

// Removes every code point with one of `bits`.
class RemoveByProperty : public Normalizer {
 public:
  explicit RemoveByProperty(uint16_t bits) : bits_(bits) {}
  void Apply(AlignedText& text) const override {
    ReplaceCharacters(
        text, [this](char32_t c, std::string&) { return (unicode::PropertiesOf(c) & bits_) != 0; });
  }

 private:
  const uint16_t bits_;
};

// BertNormalizer's clean_text: no control characters, every white space a blank.
class BertCleanText : public Normalizer {
 public:
  void Apply(AlignedText& text) const override {
    ReplaceCharacters(text, [](char32_t c, std::string& out) {
      const uint16_t properties = unicode::PropertiesOf(c);
      if (properties & unicode::kBertControl) return true;
      if (!(properties & unicode::kWhitespace) || c == ' ') return false;
      out = " ";
      return true;
    });
  }
};

// BertNormalizer's handle_chinese_chars: a blank before and after every Han ideograph of its list.
class BertSpacedHan : public Normalizer {
 public:
  void Apply(AlignedText& text) const override {
    ReplaceCharacters(text, [](char32_t c, std::string& out) {
      // 0x2B920 is the peer's (the block begins at 0x2B820), and ids have to be equal.
      const bool han = (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
                       (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
                       (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
                       (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
      if (!han) return false;
      out = " ";
      unicode::AppendUtf8(c, out);
      out += ' ';
      return true;
    });
  }
};

// SentencePiece's rules for machine translation: no control characters, odd white space a blank.
class Nmt : public Normalizer {
 public:
  void Apply(AlignedText& text) const override {
    ReplaceCharacters(text, [](char32_t c, std::string& out) {
      if ((c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
          c == 0x8F || c == 0x9F) {
        return true;
      }
      if (c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
          (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
          c == 0xFEFF || c == 0xFFFD) {
        out = " ";
        return true;
      }
      return false;
    });
  }
};

// A compiled map of SentencePiece, applied as Hugging Face does: a grapheme cluster of less than 6
// bytes is looked up as a whole, and the shortest key it begins with replaces all of it; otherwise
// each of its characters is looked up.
class Precompiled : public Normalizer {
 public:
  explicit Precompiled(CharsMap map) : map_(std::move(map)) {}

  void Apply(AlignedText& text) const override {
    const std::string_view in = text.text();
    AlignedText out;
    bool changed = false;
    uint32_t copied = 0;
    const auto look_up = [&](size_t begin, size_t end) {
      const auto replacement = map_.ShortestMatch(in.substr(begin, end - begin));
      if (!replacement.has_value()) return false;
      if (!changed) out = AlignedText::Rewrite(text);
      changed = true;
      out.AppendCopy(text, copied, static_cast<uint32_t>(begin));
      out.AppendMapped(text, static_cast<uint32_t>(begin), static_cast<uint32_t>(end),
                       *replacement);
      copied = static_cast<uint32_t>(end);
      return true;
    };
    for (size_t i = 0; i < in.size();) {
      const size_t end = unicode::GraphemeEnd(in, i);
      if (end - i >= 6 || !look_up(i, end)) {
        for (size_t at = i; at < end;) {
          const size_t length = unicode::SequenceLength(static_cast<unsigned char>(in[at]));
          look_up(at, at + length);
          at += length;
        }
      }
      i = end;
    }
    if (!changed) return;
    out.AppendCopy(text, copied, text.size());
    text = std::move(out);
  }

 private:
  const CharsMap map_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void Apply(AlignedText& text) const override {
    const std::string_view in = text.text();
    size_t begin = 0, end = in.size();
    while (left_ && begin < end) {
      size_t next = begin;
      if (!(unicode::PropertiesOf(unicode::DecodeUtf8(in, next)) & unicode::kWhitespace)) break;
      begin = next;
    }
    while (right_ && end > begin) {
      const size_t previous = unicode::PreviousCodePoint(in, end);
      size_t next = previous;
      if (!(unicode::PropertiesOf(unicode::DecodeUtf8(in, next)) & unicode::kWhitespace)) break;
      end = previous;
    }
    if (begin > 0 || end < in.size())
      text = text.Slice(static_cast<uint32_t>(begin), static_cast<uint32_t>(end));
  }

 private:
  const bool left_, right_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void Apply(AlignedText& text) const override {
    if (text.size() == 0) return;
    const auto first =
        static_cast<uint32_t>(unicode::SequenceLength(static_cast<unsigned char>(text.text()[0])));
    AlignedText out = AlignedText::Rewrite(text);
    out.AppendMapped(text, 0, first, prefix_);
    out.AppendCopy(text, 0, text.size());
    text = std::move(out);
  }

 private:
  const std::string prefix_;
};

class Replace : public Normalizer {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void Apply(AlignedText& text) const override {
    std::vector<Span> matches;
    pattern_.FindAll(text.text(), matches);
    if (matches.empty()) return;
    AlignedText out = AlignedText::Rewrite(text);
    uint32_t copied = 0;
    for (const Span& match : matches) {
      out.AppendCopy(text, copied, match.begin);
      // What is put in stands for the last code point of the match, as in Hugging Face; that of an
      // empty one for the code point beside it, for want of a better one.
      Span origin = match;
      if (origin.begin < origin.end) {
        const size_t last = unicode::PreviousCodePoint(text.text(), origin.end);
        origin.begin = std::max(origin.begin, static_cast<uint32_t>(last));
      } else {
        if (text.size() == 0) return;
        origin = origin.end < text.size() ? Span{origin.begin, origin.begin + 1}
                                          : Span{origin.begin - 1, origin.begin};
      }
      out.AppendMapped(text, origin.begin, origin.end, content_);
      copied = match.end;
    }
    out.AppendCopy(text, copied, text.size());
    text = std::move(out);
  }

 private:
  const Pattern pattern_;
  const std::string content_;
};

class ByteLevelNormalizer : public Normalizer {
 public:
  void Apply(AlignedText& text) const override {
    AlignedText out = AlignedText::Rewrite(text);
    const std::string_view in = text.text();
    for (uint32_t i = 0; i < in.size(); ++i) {
      std::string character;
      unicode::AppendUtf8(byte_level::CharacterOf(static_cast<unsigned char>(in[i])), character);
      out.AppendMapped(text, i, i + 1, character);
    }
    text = std::move(out);
  }
};

class Sequence : public Normalizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  void Apply(AlignedText& text) const override {
    for (const auto& step : steps_) step->Apply(text);
  }

 private:
  const std::vector<std::unique_ptr<Normalizer>> steps_;
};

absl::StatusOr<std::unique_ptr<Normalizer>> MakeBert(const JsonFields& fields) {
  FT_ASSIGN_OR_RETURN(const bool clean_text, fields.BoolOr("clean_text", true));
  FT_ASSIGN_OR_RETURN(const bool spaced_han, fields.BoolOr("handle_chinese_chars", true));
  FT_ASSIGN_OR_RETURN(const bool lowercase, fields.BoolOr("lowercase", true));
  FT_ASSIGN_OR_RETURN(const bool strip_accents, fields.BoolOr("strip_accents", lowercase));
  std::vector<std::unique_ptr<Normalizer>> steps;
  if (clean_text) steps.push_back(std::make_unique<BertCleanText>());
  if (spaced_han) steps.push_back(std::make_unique<BertSpacedHan>());
  if (strip_accents) {
    steps.push_back(std::make_unique<UnicodeForm>(false, false));
    steps.push_back(std::make_unique<RemoveByProperty>(unicode::kNonspacingMark));
  }
  if (lowercase) steps.push_back(std::make_unique<Lowercase>());
  return std::make_unique<Sequence>(std::move(steps));
}

absl::StatusOr<std::unique_ptr<Normalizer>> Make(const nlohmann::json& value,
                                                 const std::string& path, int depth) {
  FT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, path));
  FT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "NFC") return std::make_unique<UnicodeForm>(true, false);
  if (type == "NFD") return std::make_unique<UnicodeForm>(false, false);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(true, true);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(false, true);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "StripAccents") return std::make_unique<RemoveByProperty>(unicode::kCombiningMark);
  if (type == "Nmt") return std::make_unique<Nmt>();
  if (type == "BertNormalizer") return MakeBert(fields);
  if (type == "Precompiled") {
    FT_ASSIGN_OR_RETURN(const std::string encoded, fields.String("precompiled_charsmap"));
    std::string bytes;
    if (!absl::Base64Unescape(encoded, &bytes))
      return fields.Error("precompiled_charsmap", "is not base64");
    absl::StatusOr<CharsMap> map = CharsMap::Parse(bytes);
    if (!map.ok()) return fields.Error("precompiled_charsmap", std::string(map.status().message()));
    return std::make_unique<Precompiled>(*std::move(map));
  }
  if (type == "ByteLevel") return std::make_unique<ByteLevelNormalizer>();
  if (type == "Strip") {
    FT_ASSIGN_OR_RETURN(const bool left, fields.BoolOr("strip_left", true));
    FT_ASSIGN_OR_RETURN(const bool right, fields.BoolOr("strip_right", true));
    return std::make_unique<Strip>(left, right);
  }
  if (type == "Prepend") {
    FT_ASSIGN_OR_RETURN(std::string prefix, fields.String("prepend"));
    return std::make_unique<Prepend>(std::move(prefix));
  }
  if (type == "Replace") {
    FT_ASSIGN_OR_RETURN(std::string content, fields.String("content"));
    FT_ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromJson(fields));
    return std::make_unique<Replace>(std::move(pattern), std::move(content));
  }
  if (type == "Sequence") {
    if (depth >= kMaxDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": more than ", kMaxDepth, " sequences in each other"));
    }
    FT_ASSIGN_OR_RETURN(const nlohmann::json* parts, fields.Array("normalizers"));
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (size_t i = 0; i < parts->size(); ++i) {
      FT_ASSIGN_OR_RETURN(
          auto step, Make((*parts)[i], absl::StrCat(path, ".normalizers[", i, "]"), depth + 1));
      steps.push_back(std::move(step));
    }
    return std::make_unique<Sequence>(std::move(steps));
  }
  return UnknownComponent(fields, type, "normalizer", kSupported);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Normalizer>> MakeNormalizer(const nlohmann::json& value,
                                                           const std::string& path) {
  if (value.is_null()) return nullptr;
  return Make(value, path, 0);
}

}  // namespace finetuned
