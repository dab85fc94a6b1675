#include "worker/text/pre_tokenizers.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/text/byte_level.h"
#include "worker/text/json_fields.h"
#include "worker/text/pattern.h"
#include "worker/text/split_behavior.h"
#include "worker/text/split_patterns.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

constexpr int kMaxDepth =
    32;  // of sequences in sequences; a hostile file must not exhaust the stack
constexpr std::string_view kSupported =
    "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, FixedLength, Metaspace, Punctuation, "
    "Sequence, Split, UnicodeScripts, Whitespace, WhitespaceSplit";

// Cuts at every code point with one of `bits`.
class SplitByProperty : public PreTokenizer {
 public:
  SplitByProperty(uint16_t bits, SplitBehavior behavior) : bits_(bits), behavior_(behavior) {}
  void Apply(PreTokens& tokens) const override {
    const std::string_view text = tokens.text.text();
    std::vector<Span> out;
    out.reserve(tokens.spans.size());
    std::vector<Span> matches;
    for (const Span& span : tokens.spans) {
      matches.clear();
      for (size_t i = span.begin; i < span.end;) {
        const auto at = static_cast<uint32_t>(i);
        if (unicode::PropertiesOf(unicode::DecodeUtf8(text, i)) & bits_) {
          matches.push_back({at, static_cast<uint32_t>(i)});
        }
      }
      SplitAtMatches(span, matches, behavior_, /*invert=*/false, out);
    }
    tokens.spans = std::move(out);
  }

 private:
  const uint16_t bits_;
  const SplitBehavior behavior_;
};

class Split : public PreTokenizer {
 public:
  Split(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {
    // The known patterns cover the whole text, so these settings all keep every match as a piece of
    // its own.
    const bool keeps_matches =
        behavior == SplitBehavior::kIsolated || (behavior == SplitBehavior::kRemoved && invert);
    if (keeps_matches) known_ = KnownSplitPattern(pattern_.regex_source());
  }

  void Apply(PreTokens& tokens) const override {
    const std::string_view text = tokens.text.text();
    std::vector<Span> out;
    out.reserve(tokens.spans.size() + text.size() / 4);
    std::vector<Span> matches;
    for (const Span& span : tokens.spans) {
      if (known_.has_value()) {
        SplitByKnownPattern(*known_, text, span, out);
        continue;
      }
      matches.clear();
      pattern_.FindAll(text.substr(span.begin, span.end - span.begin), matches);
      for (Span& match : matches) match = {match.begin + span.begin, match.end + span.begin};
      SplitAtMatches(span, matches, behavior_, invert_, out);
    }
    tokens.spans = std::move(out);
  }

  std::optional<SplitPattern> known() const { return known_; }

 private:
  const Pattern pattern_;
  const SplitBehavior behavior_;
  const bool invert_;
  std::optional<SplitPattern> known_;
};

// Whitespace: runs of word characters and runs of other non-spaces, `\w+|[^\w\s]+`.
class WhitespaceWords : public PreTokenizer {
 public:
  void Apply(PreTokens& tokens) const override {
    const std::string_view text = tokens.text.text();
    std::vector<Span> out;
    for (const Span& span : tokens.spans) {
      uint16_t previous = unicode::kWhitespace;
      for (size_t i = span.begin; i < span.end;) {
        const auto at = static_cast<uint32_t>(i);
        const uint16_t properties = unicode::PropertiesOf(unicode::DecodeUtf8(text, i));
        const uint16_t kind = properties & unicode::kRustWord     ? unicode::kRustWord
                              : properties & unicode::kWhitespace ? unicode::kWhitespace
                                                                  : 0;
        if (kind != unicode::kWhitespace) {
          if (kind == previous) {
            out.back().end = static_cast<uint32_t>(i);
          } else {
            out.push_back({at, static_cast<uint32_t>(i)});
          }
        }
        previous = kind;
      }
    }
    tokens.spans = std::move(out);
  }
};

// Cuts between scripts as SentencePiece's trainer sees them. As in Hugging Face, white space in
// front of a span's first letter is lost, and so is a span without letters.
class UnicodeScripts : public PreTokenizer {
 public:
  void Apply(PreTokens& tokens) const override {
    const std::string_view text = tokens.text.text();
    std::vector<Span> out;
    for (const Span& span : tokens.spans) {
      uint8_t last = 0;
      for (size_t i = span.begin; i < span.end;) {
        const auto at = static_cast<uint32_t>(i);
        const uint8_t script = unicode::ScriptClassOf(unicode::DecodeUtf8(text, i));
        if (script != 0 && script != last) {
          if (last != 0) out.back().end = at;
          out.push_back({at, span.end});
          last = script;
        }
      }
    }
    tokens.spans = std::move(out);
  }
};

// Cuts into pieces of `length` code points.
class FixedLength : public PreTokenizer {
 public:
  explicit FixedLength(int64_t length) : length_(length) {}
  void Apply(PreTokens& tokens) const override {
    const std::string_view text = tokens.text.text();
    std::vector<Span> out;
    for (const Span& span : tokens.spans) {
      for (size_t i = span.begin; i < span.end;) {
        const auto begin = static_cast<uint32_t>(i);
        for (int64_t n = 0; n < length_ && i < span.end; ++n)
          i += unicode::SequenceLength(static_cast<unsigned char>(text[i]));
        out.push_back({begin, static_cast<uint32_t>(i)});
      }
    }
    tokens.spans = std::move(out);
  }

 private:
  const int64_t length_;
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex, bool map_bytes)
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex), map_bytes_(map_bytes) {}

  void Apply(PreTokens& tokens) const override {
    if (add_prefix_space_) AddPrefixSpace(tokens);
    if (use_regex_) {
      std::vector<Span> out;
      out.reserve(tokens.spans.size() + tokens.text.size() / 4);
      for (const Span& span : tokens.spans)
        SplitByKnownPattern(SplitPattern::kGpt2, tokens.text.text(), span, out);
      tokens.spans = std::move(out);
    }
    if (map_bytes_) MapBytes(tokens);
  }

  bool use_regex() const { return use_regex_; }

 private:
  static void AddPrefixSpace(PreTokens& tokens) {
    const std::string_view text = tokens.text.text();
    AlignedText rewritten = AlignedText::Rewrite(tokens.text);
    for (Span& span : tokens.spans) {
      const uint32_t begin = rewritten.size();
      if (text[span.begin] != ' ') {
        const size_t first = unicode::SequenceLength(static_cast<unsigned char>(text[span.begin]));
        rewritten.AppendMapped(tokens.text, span.begin, static_cast<uint32_t>(span.begin + first),
                               " ");
      }
      rewritten.AppendCopy(tokens.text, span.begin, span.end);
      span = {begin, rewritten.size()};
    }
    tokens.text = std::move(rewritten);
  }

  static void MapBytes(PreTokens& tokens) {
    const std::string_view text = tokens.text.text();
    AlignedText rewritten = AlignedText::Rewrite(tokens.text);
    std::string character;
    for (Span& span : tokens.spans) {
      const uint32_t begin = rewritten.size();
      for (uint32_t i = span.begin; i < span.end; ++i) {
        character.clear();
        unicode::AppendUtf8(byte_level::CharacterOf(static_cast<unsigned char>(text[i])),
                            character);
        rewritten.AppendMapped(tokens.text, i, i + 1, character);
      }
      span = {begin, rewritten.size()};
    }
    tokens.text = std::move(rewritten);
  }

  const bool add_prefix_space_, use_regex_, map_bytes_;
};

enum class PrependScheme { kAlways, kFirst, kNever };

// SentencePiece's treatment of spaces: each becomes `replacement`, which may also be put in front.
class Metaspace : public PreTokenizer {
 public:
  Metaspace(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}

  void Apply(PreTokens& tokens) const override {
    const std::string_view text = tokens.text.text();
    AlignedText rewritten = AlignedText::Rewrite(tokens.text);
    std::vector<Span> out;
    for (const Span& span : tokens.spans) {
      const std::string_view word = text.substr(span.begin, span.end - span.begin);
      const uint32_t begin = rewritten.size();
      const bool prefixed = word[0] == ' ' || word.starts_with(replacement_);
      const auto first =
          static_cast<uint32_t>(unicode::SequenceLength(static_cast<unsigned char>(word[0])));
      if (!prefixed &&
          (scheme_ == PrependScheme::kAlways ||
           (scheme_ == PrependScheme::kFirst &&
            tokens.text.OriginOf(span.begin, span.begin + first).begin < tokens.first_character))) {
        rewritten.AppendMapped(tokens.text, span.begin, span.begin + first, replacement_);
      }
      uint32_t copied = span.begin;
      for (uint32_t i = span.begin; i < span.end; ++i) {
        if (text[i] != ' ') continue;
        rewritten.AppendCopy(tokens.text, copied, i);
        rewritten.AppendMapped(tokens.text, i, i + 1, replacement_);
        copied = i + 1;
      }
      rewritten.AppendCopy(tokens.text, copied, span.end);
      const Span whole{begin, rewritten.size()};
      if (!split_) {
        out.push_back(whole);
        continue;
      }
      std::vector<Span> matches;
      for (size_t at = begin;
           (at = rewritten.text().find(replacement_, at)) != std::string_view::npos;) {
        matches.push_back(
            {static_cast<uint32_t>(at), static_cast<uint32_t>(at + replacement_.size())});
        at += replacement_.size();
      }
      SplitAtMatches(whole, matches, SplitBehavior::kMergedWithNext, /*invert=*/false, out);
    }
    tokens.text = std::move(rewritten);
    tokens.spans = std::move(out);
  }

 private:
  const std::string replacement_;
  const PrependScheme scheme_;
  const bool split_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void Apply(PreTokens& tokens) const override {
    for (const auto& step : steps_) step->Apply(tokens);
  }

 private:
  const std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

// The components of nested sequences in order of application.
absl::Status Flatten(const nlohmann::json& value, const std::string& path, int depth,
                     std::vector<JsonFields>& leaves) {
  FT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, path));
  FT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type != "Sequence") {
    leaves.push_back(fields);
    return absl::OkStatus();
  }
  if (depth >= kMaxDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": more than ", kMaxDepth, " sequences in each other"));
  }
  FT_ASSIGN_OR_RETURN(const nlohmann::json* parts, fields.Array("pretokenizers"));
  for (size_t i = 0; i < parts->size(); ++i) {
    FT_RETURN_IF_ERROR(
        Flatten((*parts)[i], absl::StrCat(path, ".pretokenizers[", i, "]"), depth + 1, leaves));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> MakeMetaspace(const JsonFields& fields,
                                                            bool& needs_origin) {
  FT_ASSIGN_OR_RETURN(std::string replacement, fields.Character("replacement"));
  FT_ASSIGN_OR_RETURN(const bool split, fields.BoolOr("split", true));
  // Files older than prepend_scheme say add_prefix_space.
  FT_ASSIGN_OR_RETURN(const bool add_prefix_space, fields.BoolOr("add_prefix_space", true));
  FT_ASSIGN_OR_RETURN(const std::string scheme,
                      fields.StringOr("prepend_scheme", add_prefix_space ? "always" : "never"));
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return fields.Error("prepend_scheme",
                        absl::StrCat("is '", scheme, "'; it must be always, first or never"));
  }
  if (!add_prefix_space && scheme != "never") {
    return fields.Error(
        "prepend_scheme",
        absl::StrCat("is '", scheme, "', which contradicts add_prefix_space: false"));
  }
  needs_origin |= scheme == "first";
  return std::make_unique<Metaspace>(std::move(replacement),
                                     scheme == "always"  ? PrependScheme::kAlways
                                     : scheme == "first" ? PrependScheme::kFirst
                                                         : PrependScheme::kNever,
                                     split);
}

absl::StatusOr<SplitBehavior> ReadBehavior(const JsonFields& fields, std::string_view fallback) {
  FT_ASSIGN_OR_RETURN(const std::string name, fields.StringOr("behavior", fallback));
  const std::optional<SplitBehavior> behavior = ParseSplitBehavior(name);
  if (!behavior.has_value()) {
    return fields.Error("behavior",
                        absl::StrCat("is '", name,
                                     "'; it must be Removed, Isolated, MergedWithPrevious, "
                                     "MergedWithNext or Contiguous"));
  }
  return *behavior;
}

// llama.cpp's name for this list of components. Only lists that its own implementation treats alike
// have one.
std::string FamilyOf(const std::vector<JsonFields>& leaves,
                     const std::vector<std::unique_ptr<PreTokenizer>>& steps) {
  const auto* last = steps.empty() ? nullptr : dynamic_cast<const ByteLevel*>(steps.back().get());
  if (last == nullptr) return "";
  if (steps.size() == 1) return last->use_regex() ? "gpt-2" : "";
  if (steps.size() != 2) return "";
  const auto* split = dynamic_cast<const Split*>(steps[0].get());
  if (split != nullptr && !last->use_regex()) {
    if (split->known() == SplitPattern::kLlama3) return "llama-bpe";
    if (split->known() == SplitPattern::kQwen2) return "qwen2";
  }
  if (last->use_regex() && leaves[0].StringOr("type", "").value_or("") == "Digits" &&
      leaves[0].BoolOr("individual_digits", false).value_or(false)) {
    return "smollm";
  }
  return "";
}

}  // namespace

absl::StatusOr<PreTokenization> MakePreTokenizer(const nlohmann::json& value,
                                                 const std::string& path, bool prefer_raw_bytes) {
  PreTokenization result;
  if (value.is_null()) return result;
  std::vector<JsonFields> leaves;
  FT_RETURN_IF_ERROR(Flatten(value, path, 0, leaves));
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  for (size_t i = 0; i < leaves.size(); ++i) {
    const JsonFields& fields = leaves[i];
    FT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
    if (type == "ByteLevel") {
      FT_ASSIGN_OR_RETURN(const bool add_prefix_space, fields.BoolOr("add_prefix_space", true));
      FT_ASSIGN_OR_RETURN(const bool use_regex, fields.BoolOr("use_regex", true));
      const bool raw = prefer_raw_bytes && i + 1 == leaves.size();
      result.raw_bytes |= raw;
      steps.push_back(std::make_unique<ByteLevel>(add_prefix_space, use_regex, /*map_bytes=*/!raw));
    } else if (type == "Split") {
      FT_ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromJson(fields));
      FT_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(fields, "Isolated"));
      FT_ASSIGN_OR_RETURN(const bool invert, fields.BoolOr("invert", false));
      steps.push_back(std::make_unique<Split>(std::move(pattern), behavior, invert));
    } else if (type == "Digits") {
      FT_ASSIGN_OR_RETURN(const bool individual, fields.BoolOr("individual_digits", false));
      steps.push_back(std::make_unique<SplitByProperty>(
          unicode::kRustNumeric,
          individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
    } else if (type == "Punctuation") {
      FT_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(fields, "Isolated"));
      steps.push_back(std::make_unique<SplitByProperty>(unicode::kPunctuation, behavior));
    } else if (type == "Whitespace") {
      steps.push_back(std::make_unique<WhitespaceWords>());
    } else if (type == "WhitespaceSplit") {
      steps.push_back(
          std::make_unique<SplitByProperty>(unicode::kWhitespace, SplitBehavior::kRemoved));
    } else if (type == "BertPreTokenizer") {
      steps.push_back(
          std::make_unique<SplitByProperty>(unicode::kWhitespace, SplitBehavior::kRemoved));
      steps.push_back(
          std::make_unique<SplitByProperty>(unicode::kPunctuation, SplitBehavior::kIsolated));
    } else if (type == "CharDelimiterSplit") {
      FT_ASSIGN_OR_RETURN(const std::string delimiter, fields.Character("delimiter"));
      steps.push_back(
          std::make_unique<Split>(Pattern::Literal(delimiter), SplitBehavior::kRemoved, false));
    } else if (type == "UnicodeScripts") {
      steps.push_back(std::make_unique<UnicodeScripts>());
    } else if (type == "FixedLength") {
      int64_t length = 5;
      if (fields.Has("length")) {
        FT_ASSIGN_OR_RETURN(length, fields.Integer("length", 1, INT64_MAX));
      }
      steps.push_back(std::make_unique<FixedLength>(length));
    } else if (type == "Metaspace") {
      FT_ASSIGN_OR_RETURN(auto metaspace, MakeMetaspace(fields, result.needs_origin));
      steps.push_back(std::move(metaspace));
    } else {
      return UnknownComponent(fields, type, "pre-tokenizer", kSupported);
    }
  }
  result.family = FamilyOf(leaves, steps);
  result.pre_tokenizer = std::make_unique<Sequence>(std::move(steps));
  return result;
}

}  // namespace finetuned
