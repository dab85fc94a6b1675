#include "worker/data/filters.h"

#include <algorithm>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "proto/base/sha256.h"
#include "worker/data/content_hash.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

int64_t CodePoints(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// Characters that Windows-1252 puts at 0x80…0x9F.
bool IsWindowsHigh(char32_t c) {
  constexpr char32_t kHigh[] = {0x20AC, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021,
                                0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0x017D, 0x2018,
                                0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x02DC,
                                0x2122, 0x0161, 0x203A, 0x0153, 0x017E, 0x0178};
  return std::find(std::begin(kHigh), std::end(kHigh), c) != std::end(kHigh);
}

bool RepeatsLines(std::string_view text) {
  absl::flat_hash_map<std::string_view, int> counts;
  int lines = 0, most = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = StripWhitespace(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) continue;
    ++lines;
    most = std::max(most, ++counts[line]);
  }
  return lines >= 8 && most * 10 > lines * 7;
}

bool RepeatsWords(std::string_view text) {
  std::vector<std::string_view> words;
  size_t position = 0;
  while (true) {
    position = text.find_first_not_of(" \t\r\n", position);
    if (position == std::string_view::npos) break;
    const size_t end = std::min(text.find_first_of(" \t\r\n", position), text.size());
    words.push_back(text.substr(position, end - position));
    position = end;
  }
  if (words.size() < 50) return false;
  absl::flat_hash_map<std::string_view, std::pair<size_t, size_t>>
      runs;  // text → (count, next free word)
  size_t most = 0;
  for (size_t i = 0; i + 4 <= words.size(); ++i) {
    const std::string_view run(words[i].data(),
                               words[i + 3].data() + words[i + 3].size() - words[i].data());
    auto& [count, free_from] = runs[run];
    if (i < free_from)
      continue;  // occurrences may not overlap, or "a a a a a" would count five-fold
    free_from = i + 4;
    most = std::max(most, ++count);
  }
  return most > 1 && most * 4 * 2 > words.size();
}

absl::Status CheckLength(std::string_view what, int64_t chars, int64_t least,
                         const std::optional<int64_t>& most) {
  const std::string name(what);
  if (chars < least) {
    if (chars == 0)
      return BadRecord("empty_" + name, absl::StrCat("the ", name, " is empty or white space"));
    return BadRecord("short_" + name,
                     absl::StrCat("the ", name, " has ", chars, " characters, at least ", least,
                                  " are asked for"));
  }
  if (most && chars > *most) {
    return BadRecord("long_" + name, absl::StrCat("the ", name, " has ", chars,
                                                  " characters, at most ", *most, " are allowed"));
  }
  return absl::OkStatus();
}

}  // namespace

FilterOptions FilterOptions::FromSpec(const v1::Filters& filters) {
  FilterOptions options;
  if (filters.has_min_instruction_chars())
    options.min_instruction_chars = filters.min_instruction_chars();
  if (filters.has_max_instruction_chars())
    options.max_instruction_chars = filters.max_instruction_chars();
  if (filters.has_min_response_chars()) options.min_response_chars = filters.min_response_chars();
  if (filters.has_max_response_chars()) options.max_response_chars = filters.max_response_chars();
  if (filters.has_min_quality_score()) options.min_quality_score = filters.min_quality_score();
  if (filters.has_encoding_damage()) options.encoding_damage = filters.encoding_damage();
  if (filters.has_repetition()) options.repetition = filters.repetition();
  return options;
}

absl::Status CheckFilters(const Conversation& conversation, const FilterOptions& options) {
  int64_t user_total = 0, user_longest = 0;
  for (const Turn& turn : conversation.turns) {
    const int64_t chars = CodePoints(StripWhitespace(turn.content));
    if (turn.role == "user") {
      user_total += chars;
      user_longest = std::max(user_longest, chars);
    } else if (turn.role == "assistant" || conversation.plain_text) {
      if (chars == 0 && turn.HasToolCalls()) continue;
      absl::Status status =
          CheckLength("response", chars, options.min_response_chars, options.max_response_chars);
      if (!status.ok()) return status;
    }
  }
  if (!conversation.plain_text) {
    if (absl::Status status =
            CheckLength("instruction", user_total, options.min_instruction_chars, std::nullopt);
        !status.ok())
      return status;
    if (absl::Status status =
            CheckLength("instruction", user_longest, 0, options.max_instruction_chars);
        !status.ok())
      return status;
  }
  if (conversation.quality_score && *conversation.quality_score < options.min_quality_score) {
    return BadRecord("low_quality", absl::StrCat("quality_score ", *conversation.quality_score,
                                                 " is below ", options.min_quality_score));
  }
  for (size_t i = 0; i < conversation.turns.size(); ++i) {
    const Turn& turn = conversation.turns[i];
    if (options.encoding_damage && HasEncodingDamage(turn.content)) {
      return BadRecord("encoding_damage",
                       absl::StrCat("turn ", i + 1, " holds characters of a wrong decoding"));
    }
    if (options.repetition && (turn.role == "assistant" || conversation.plain_text)) {
      if (const std::string_view spam = FindSpam(turn.content); !spam.empty()) {
        return BadRecord(spam, absl::StrCat("turn ", i + 1,
                                            spam == "repetition" ? " repeats itself"
                                                                 : " is nearly all symbols"));
      }
    }
  }
  return absl::OkStatus();
}

bool HasEncodingDamage(std::string_view text) {
  int64_t chars = 0, damaged = 0;
  char32_t before = 0;
  for (size_t position = 0; position < text.size(); ++chars) {
    const char32_t c = unicode::DecodeUtf8(text, position);
    if (c == 0xFFFD) return true;
    if (c < 0x20 && c != '\t' && c != '\n' && c != '\r' && c != '\f' && c != '\v' && c != 0x1B)
      return true;
    // Lead bytes C2…C3 of Latin letters and E2 of typographic signs, read as characters of their
    // own.
    const bool continuation = (c >= 0x80 && c < 0xC0) || IsWindowsHigh(c);
    if ((before == 0xC2 || before == 0xC3) && continuation) ++damaged;
    if (before == 0xE2 && (c == 0x20AC || c == 0x80)) ++damaged;
    before = c;
  }
  return damaged >= 3 || (damaged > 0 && damaged * 50 >= chars);
}

std::string_view FindSpam(std::string_view text) {
  text = StripWhitespace(text);
  int64_t chars = 0, words = 0, run = 0;
  char32_t before = 0;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = unicode::DecodeUtf8(text, position);
    run = c == before ? run + 1 : 1;
    before = c;
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') continue;
    if (run >= 200) return "repetition";
    ++chars;
    // Every letter outside ASCII counts as one, so that no script is taken for symbols.
    words +=
        c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  }
  if (RepeatsLines(text) || RepeatsWords(text)) return "repetition";
  if (chars >= 40 && words * 10 < chars) return "symbol_spam";
  return {};
}

bool SeenTexts::Add(std::string_view text) { return hashes_.insert(HashText(text)).second; }
bool SeenTexts::Contains(std::string_view text) const { return hashes_.contains(HashText(text)); }

}  // namespace finetuned
