#include "worker/text/added_tokens.h"

#include <algorithm>

#include "worker/text/unicode.h"

namespace finetuned {
namespace {

bool HasPropertyBefore(std::string_view text, size_t position, uint16_t property) {
  if (position == 0) return false;
  size_t at = unicode::PreviousCodePoint(text, position);
  return unicode::PropertiesOf(unicode::DecodeUtf8(text, at)) & property;
}

bool HasPropertyAt(std::string_view text, size_t position, uint16_t property) {
  return position < text.size() &&
         (unicode::PropertiesOf(unicode::DecodeUtf8(text, position)) & property);
}

}  // namespace

void AddedTokenMatcher::Add(std::string_view pattern, const AddedToken* token) {
  if (pattern.empty()) return;
  starts_[static_cast<unsigned char>(pattern[0])] = true;
  uint32_t node = 0;
  for (char byte : pattern) {
    const auto [it, added] = edges_.try_emplace(Edge(node, static_cast<unsigned char>(byte)),
                                                static_cast<uint32_t>(nodes_.size()));
    if (added) nodes_.emplace_back();
    node = it->second;
  }
  if (nodes_[node].token == nullptr) nodes_[node].token = token;
}

const AddedToken* AddedTokenMatcher::LongestAt(std::string_view text, size_t begin,
                                               size_t& end) const {
  const AddedToken* longest = nullptr;
  uint32_t node = 0;
  for (size_t i = begin; i < text.size(); ++i) {
    const auto it = edges_.find(Edge(node, static_cast<unsigned char>(text[i])));
    if (it == edges_.end()) break;
    node = it->second;
    if (nodes_[node].token != nullptr) {
      longest = nodes_[node].token;
      end = i + 1;
    }
  }
  return longest;
}

void AddedTokenMatcher::Split(std::string_view text, std::vector<Part>& parts) const {
  size_t done = 0;  // everything before is in `parts`
  for (size_t at = 0; at < text.size() && !empty();) {
    if (!starts_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    size_t begin = at, end = 0;
    const AddedToken* token = LongestAt(text, begin, end);
    if (token == nullptr) {
      ++at;
      continue;
    }
    at = end;  // a match refused below still hides what overlaps it
    if (token->single_word && (HasPropertyBefore(text, begin, unicode::kRustWord) ||
                               HasPropertyAt(text, end, unicode::kRustWord))) {
      continue;
    }
    if (token->lstrip) {
      while (begin > done && HasPropertyBefore(text, begin, unicode::kWhitespace)) {
        begin = unicode::PreviousCodePoint(text, begin);
      }
      begin = std::max(begin, done);
    }
    if (token->rstrip) {
      while (HasPropertyAt(text, end, unicode::kWhitespace)) unicode::DecodeUtf8(text, end);
    }
    if (done < begin)
      parts.push_back({nullptr, {static_cast<uint32_t>(done), static_cast<uint32_t>(begin)}});
    // The token before may have taken all of this one along as white space; Hugging Face drops it
    // then.
    if (begin < end)
      parts.push_back({token, {static_cast<uint32_t>(begin), static_cast<uint32_t>(end)}});
    done = end;
  }
  if (done < text.size())
    parts.push_back({nullptr, {static_cast<uint32_t>(done), static_cast<uint32_t>(text.size())}});
}

}  // namespace finetuned
