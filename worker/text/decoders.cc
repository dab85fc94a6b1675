#include "worker/text/decoders.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/base/status_macros.h"
#include "worker/text/byte_level.h"
#include "worker/text/json_fields.h"
#include "worker/text/pattern.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

constexpr int kMaxDepth = 32;
constexpr std::string_view kSupported =
    "BPEDecoder, ByteFallback, ByteLevel, CTC, Fuse, Metaspace, Replace, Sequence, Strip, "
    "WordPiece";

using Tokens = std::vector<std::string>;

// Every `from` in `text` becomes `to`; an empty `from` stands before and after every character.
void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  std::string out;
  size_t done = 0;
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos;) {
    out.append(text, done, at - done).append(to);
    done = at + from.size();
    at = done;
    if (!from.empty()) continue;
    if (at == text.size()) break;
    at += unicode::SequenceLength(static_cast<unsigned char>(text[at]));
  }
  text = out.append(text, done);
}

class ByteLevel : public Decoder {
 public:
  Tokens Apply(Tokens tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) {
      // A token that is not written in the alphabet, such as an added one, stands for itself.
      if (!byte_level::AppendBytes(token, bytes)) bytes.append(token);
    }
    return {unicode::ToValidUtf8(bytes)};
  }
};

// Joins runs of "<0xE2>" tokens to the text they spell; a run that is not UTF-8 becomes one U+FFFD
// a byte.
class ByteFallback : public Decoder {
 public:
  Tokens Apply(Tokens tokens) const override {
    Tokens out;
    std::string bytes;
    const auto flush = [&out, &bytes] {
      if (bytes.empty()) return;
      if (unicode::ValidUtf8Prefix(bytes) == bytes.size()) {
        out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const std::optional<char> byte = ByteOf(token); byte.has_value()) {
        bytes.push_back(*byte);
      } else {
        flush();
        out.push_back(std::move(token));
      }
    }
    flush();
    return out;
  }

 private:
  static std::optional<char> ByteOf(const std::string& token) {
    if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
    int value = 0;
    for (int i = 3; i < 5; ++i) {
      const auto c = static_cast<unsigned char>(token[i]);
      if (i == 3 && c == '+') continue;  // Rust's number parser takes a sign
      if (!std::isxdigit(c)) return std::nullopt;
      value = value * 16 + (std::isdigit(c) ? c - '0' : (c | 32) - 'a' + 10);
    }
    return static_cast<char>(value);
  }
};

class Fuse : public Decoder {
 public:
  Tokens Apply(Tokens tokens) const override { return {absl::StrJoin(tokens, "")}; }
};

// Cuts up to `start` leading and `stop` trailing copies of a character off every token.
class Strip : public Decoder {
 public:
  Strip(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  Tokens Apply(Tokens tokens) const override {
    for (std::string& token : tokens) {
      const std::string_view rest = token;
      // Both ends look at the whole token, so one of only such characters may lose all of them.
      size_t front = 0, back = 0;
      for (size_t i = 0; i < start_ && rest.substr(front).starts_with(content_); ++i)
        front += content_.size();
      for (size_t i = 0; i < stop_ && rest.substr(0, rest.size() - back).ends_with(content_); ++i) {
        back += content_.size();
      }
      token = front + back >= token.size() ? "" : token.substr(front, token.size() - front - back);
    }
    return tokens;
  }

 private:
  const std::string content_;
  const size_t start_, stop_;
};

class Replace : public Decoder {
 public:
  Replace(Pattern pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Tokens Apply(Tokens tokens) const override {
    std::vector<Span> matches;
    for (std::string& token : tokens) {
      matches.clear();
      pattern_.FindAll(token, matches);
      if (matches.empty() || token.empty()) continue;
      std::string replaced;
      uint32_t copied = 0;
      for (const Span& match : matches) {
        replaced.append(token, copied, match.begin - copied).append(content_);
        copied = match.end;
      }
      replaced.append(token, copied);
      token = std::move(replaced);
    }
    return tokens;
  }

 private:
  const Pattern pattern_;
  const std::string content_;
};

// `replacement` becomes a space, but in the first token nothing if the pre-tokenizer may have put
// it there.
class Metaspace : public Decoder {
 public:
  Metaspace(std::string replacement, bool prepends)
      : replacement_(std::move(replacement)), prepends_(prepends) {}
  Tokens Apply(Tokens tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      ReplaceAll(tokens[i], replacement_, i == 0 && prepends_ ? "" : " ");
    }
    return tokens;
  }

 private:
  const std::string replacement_;
  const bool prepends_;
};

// Undoes the blanks that cutting into words has put around punctuation and contractions, in
// Hugging Face's order.
void CleanUp(std::string& text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) ReplaceAll(text, from, to);
}

// A blank before every token but the first and those that continue a word, whose prefix goes.
class WordPiece : public Decoder {
 public:
  WordPiece(std::string prefix, bool clean_up) : prefix_(std::move(prefix)), clean_up_(clean_up) {}
  Tokens Apply(Tokens tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) {
        if (tokens[i].starts_with(prefix_)) {
          tokens[i].erase(0, prefix_.size());
        } else {
          tokens[i].insert(0, 1, ' ');
        }
      }
      if (clean_up_) CleanUp(tokens[i]);
    }
    return tokens;
  }

 private:
  const std::string prefix_;
  const bool clean_up_;
};

// Of a speech model's output: equal tokens side by side are one, padding goes, the delimiter is a
// blank.
class Ctc : public Decoder {
 public:
  Ctc(std::string pad, std::string delimiter, bool clean_up)
      : pad_(std::move(pad)), delimiter_(std::move(delimiter)), clean_up_(clean_up) {}
  Tokens Apply(Tokens tokens) const override {
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (std::string& token : tokens) {
      ReplaceAll(token, pad_, "");
      if (!clean_up_) continue;
      CleanUp(token);
      ReplaceAll(token, delimiter_, " ");
    }
    std::erase_if(tokens, [](const std::string& token) { return token.empty(); });
    return tokens;
  }

 private:
  const std::string pad_, delimiter_;
  const bool clean_up_;
};

// The end-of-word suffix becomes a space, but not in the last token.
class BpeDecoder : public Decoder {
 public:
  explicit BpeDecoder(std::string suffix) : suffix_(std::move(suffix)) {}
  Tokens Apply(Tokens tokens) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      ReplaceAll(tokens[i], suffix_, i + 1 == tokens.size() ? "" : " ");
    }
    return tokens;
  }

 private:
  const std::string suffix_;
};

class Sequence : public Decoder {
 public:
  explicit Sequence(std::vector<std::unique_ptr<Decoder>> steps) : steps_(std::move(steps)) {}
  Tokens Apply(Tokens tokens) const override {
    for (const auto& step : steps_) tokens = step->Apply(std::move(tokens));
    return tokens;
  }

 private:
  const std::vector<std::unique_ptr<Decoder>> steps_;
};

absl::StatusOr<std::unique_ptr<Decoder>> Make(const nlohmann::json& value, const std::string& path,
                                              int depth) {
  FT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, path));
  FT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "ByteLevel") return std::make_unique<ByteLevel>();
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Strip") {
    FT_ASSIGN_OR_RETURN(std::string content, fields.Character("content"));
    FT_ASSIGN_OR_RETURN(const int64_t start, fields.Integer("start", 0, INT32_MAX));
    FT_ASSIGN_OR_RETURN(const int64_t stop, fields.Integer("stop", 0, INT32_MAX));
    return std::make_unique<Strip>(std::move(content), static_cast<size_t>(start),
                                   static_cast<size_t>(stop));
  }
  if (type == "Replace") {
    FT_ASSIGN_OR_RETURN(std::string content, fields.String("content"));
    FT_ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromJson(fields));
    return std::make_unique<Replace>(std::move(pattern), std::move(content));
  }
  if (type == "Metaspace") {
    FT_ASSIGN_OR_RETURN(std::string replacement, fields.Character("replacement"));
    FT_ASSIGN_OR_RETURN(const bool add_prefix_space, fields.BoolOr("add_prefix_space", true));
    FT_ASSIGN_OR_RETURN(const std::string scheme,
                        fields.StringOr("prepend_scheme", add_prefix_space ? "always" : "never"));
    return std::make_unique<Metaspace>(std::move(replacement), scheme != "never");
  }
  if (type == "WordPiece") {
    FT_ASSIGN_OR_RETURN(std::string prefix, fields.StringOr("prefix", "##"));
    FT_ASSIGN_OR_RETURN(const bool clean_up, fields.BoolOr("cleanup", true));
    return std::make_unique<WordPiece>(std::move(prefix), clean_up);
  }
  if (type == "CTC") {
    FT_ASSIGN_OR_RETURN(std::string pad, fields.StringOr("pad_token", "<pad>"));
    FT_ASSIGN_OR_RETURN(std::string delimiter, fields.StringOr("word_delimiter_token", "|"));
    FT_ASSIGN_OR_RETURN(const bool clean_up, fields.BoolOr("cleanup", true));
    return std::make_unique<Ctc>(std::move(pad), std::move(delimiter), clean_up);
  }
  if (type == "BPEDecoder") {
    FT_ASSIGN_OR_RETURN(std::string suffix, fields.StringOr("suffix", "</w>"));
    return std::make_unique<BpeDecoder>(std::move(suffix));
  }
  if (type == "Sequence") {
    if (depth >= kMaxDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": more than ", kMaxDepth, " sequences in each other"));
    }
    FT_ASSIGN_OR_RETURN(const nlohmann::json* parts, fields.Array("decoders"));
    std::vector<std::unique_ptr<Decoder>> steps;
    for (size_t i = 0; i < parts->size(); ++i) {
      FT_ASSIGN_OR_RETURN(auto step,
                          Make((*parts)[i], absl::StrCat(path, ".decoders[", i, "]"), depth + 1));
      steps.push_back(std::move(step));
    }
    return std::make_unique<Sequence>(std::move(steps));
  }
  return UnknownComponent(fields, type, "decoder", kSupported);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Decoder>> MakeDecoder(const nlohmann::json& value,
                                                     const std::string& path) {
  if (value.is_null()) return nullptr;
  return Make(value, path, 0);
}

}  // namespace finetuned
