// Added tokens: strings such as "<|im_end|>" that are found in the text before the model sees it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "worker/text/aligned_text.h"

namespace finetuned {

struct AddedToken {
  int32_t id;
  std::string content;
  bool single_word;  // matches only where no word character stands on either side
  bool lstrip;       // takes the white space before it along
  bool rstrip;       // takes the white space behind it along
  bool normalized;   // looked for in normalized text, and its content is normalized for that
  bool special;      // left out by Decode(skip_special_tokens)
};

// Finds a set of tokens in a text: leftmost first, of several at one place the longest, as an
// Aho-Corasick automaton with leftmost-longest matching. Const use is thread-safe.
class AddedTokenMatcher {
 public:
  // A stretch of the text: an added token, or text between two (token == nullptr).
  struct Part {
    const AddedToken* token;
    Span span;
  };

  // `pattern` is what to look for: the token's content, normalized if need be. An empty one never
  // matches. `token` must outlive the matcher.
  void Add(std::string_view pattern, const AddedToken* token);

  bool empty() const { return nodes_.size() == 1; }
  // Appends the parts of `text` in order. Parts of text are not empty; there is none for an empty
  // text. A token's span includes the white space it took along.
  void Split(std::string_view text, std::vector<Part>& parts) const;

 private:
  // A trie over bytes, its edges in one hash table.
  struct Node {
    const AddedToken* token = nullptr;
  };
  static uint64_t Edge(uint32_t node, unsigned char byte) { return uint64_t{node} << 8 | byte; }
  // End of the longest token that starts at `begin`, with the token; null when none does.
  const AddedToken* LongestAt(std::string_view text, size_t begin, size_t& end) const;

  std::vector<Node> nodes_{1};
  absl::flat_hash_map<uint64_t, uint32_t> edges_;
  std::array<bool, 256> starts_{};  // bytes that some token starts with
};

}  // namespace finetuned
