#include "worker/text/regex.h"

#include <oniguruma.h>

#include <mutex>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

// Outside of brackets Oniguruma looks code points below U+0100 up in a table of Latin-1 that counts
// these as \w.
constexpr std::string_view kLatin1Word = "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

// `more` are further members of the class, in the syntax of a class.
std::optional<std::string> RangeClass(std::string_view name, bool negate,
                                      std::string_view more = "") {
  const auto ranges = unicode::PropertyRanges(name);
  if (!ranges.has_value()) return std::nullopt;
  std::string out = negate ? "[^" : "[";
  for (auto [first, last] : *ranges) {
    // Surrogates are no code points of UTF-8, and Oniguruma refuses them as ends of a range.
    if (first >= 0xD800 && first <= 0xDFFF) first = 0xE000;
    if (last >= 0xD800 && last <= 0xDFFF) last = 0xD7FF;
    if (first > last) continue;
    absl::StrAppendFormat(&out, "\\x{%x}", static_cast<uint32_t>(first));
    if (last != first) absl::StrAppendFormat(&out, "-\\x{%x}", static_cast<uint32_t>(last));
  }
  return out.append(more) + "]";
}

const char* Bytes(const OnigUChar* p) { return reinterpret_cast<const char*>(p); }
const OnigUChar* Chars(std::string_view s) { return reinterpret_cast<const OnigUChar*>(s.data()); }

}  // namespace

std::string ExpandProperties(std::string_view pattern) {
  std::string out;
  int depth = 0;  // of brackets
  for (size_t i = 0; i < pattern.size();) {
    if (pattern[i] != '\\' || i + 1 >= pattern.size()) {
      if (pattern[i] == '[') ++depth;
      if (pattern[i] == ']' && depth > 0) --depth;
      out.push_back(pattern[i++]);
      continue;
    }
    const char kind = pattern[i + 1];
    size_t length = 2;
    std::optional<std::string> ranges;
    // A nested class is a union in Oniguruma, so the same text serves inside and outside of
    // brackets.
    if (kind == 'w' || kind == 'W') {
      ranges = RangeClass("word", kind == 'W', depth == 0 ? kLatin1Word : "");
    } else if (kind == 'd' || kind == 'D') {
      ranges = RangeClass("digit", kind == 'D');
    } else if ((kind == 'p' || kind == 'P') && i + 2 < pattern.size() && pattern[i + 2] == '{') {
      const size_t close = pattern.find('}', i);
      if (close != std::string_view::npos) {
        std::string_view name = pattern.substr(i + 3, close - i - 3);
        bool negate = kind == 'P';
        if (!name.empty() && name[0] == '^') {
          negate = !negate;
          name.remove_prefix(1);
        }
        ranges = RangeClass(name, negate);
        length = close + 1 - i;
      }
    }
    out += ranges.has_value() ? *ranges : std::string(pattern.substr(i, length));
    i += length;
  }
  return out;
}

absl::StatusOr<std::unique_ptr<Regex>> Regex::Compile(std::string_view pattern) {
  static std::once_flag initialized;
  std::call_once(initialized, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
  });
  if (unicode::ValidUtf8Prefix(pattern) != pattern.size()) {
    return absl::InvalidArgumentError("regular expression is not UTF-8");
  }
  const std::string expanded = ExpandProperties(pattern);
  regex_t* compiled = nullptr;
  OnigErrorInfo info;
  const int code = onig_new(&compiled, Chars(expanded), Chars(expanded) + expanded.size(),
                            ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_RUBY, &info);
  if (code != ONIG_NORMAL) {
    OnigUChar reason[ONIG_MAX_ERROR_MESSAGE_LEN];
    onig_error_code_to_str(reason, code, &info);
    return absl::InvalidArgumentError(absl::StrCat("regular expression '", std::string(pattern),
                                                   "' does not compile: ", Bytes(reason)));
  }
  return std::unique_ptr<Regex>(new Regex(compiled));
}

Regex::~Regex() { onig_free(compiled_); }

void Regex::FindAll(std::string_view text, std::vector<Span>& matches) const {
  const OnigUChar* const begin = Chars(text);
  const OnigUChar* const end = begin + text.size();
  std::unique_ptr<OnigRegion, void (*)(OnigRegion*)> region(
      onig_region_new(), [](OnigRegion* r) { onig_region_free(r, 1); });
  size_t from = 0;
  bool matched = false;
  size_t last_end = 0;
  while (from <= text.size()) {
    if (onig_search(compiled_, begin, end, begin + from, end, region.get(), ONIG_OPTION_NONE) < 0)
      return;
    const auto match_begin = static_cast<size_t>(region->beg[0]),
               match_end = static_cast<size_t>(region->end[0]);
    if (match_begin == match_end && matched && last_end == match_end) {
      from +=
          from < text.size() ? unicode::SequenceLength(static_cast<unsigned char>(text[from])) : 1;
      continue;
    }
    from = last_end = match_end;
    matched = true;
    matches.push_back({static_cast<uint32_t>(match_begin), static_cast<uint32_t>(match_end)});
  }
}

}  // namespace finetuned
