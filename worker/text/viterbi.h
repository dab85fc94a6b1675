// The Viterbi search of Unigram models (Kudo, 2018): of all ways to cut a word into pieces the one
// with the highest sum of scores. Shared by Hugging Face's (unigram.cc: sums of doubles) and
// SentencePiece's (sentencepiece.cc: of floats); each in the precision and order of its peer, for
// among ways of equal score the rounding decides. Internal to the tokenizer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "worker/text/double_array.h"
#include "worker/text/unicode.h"

namespace finetuned {

// The best way to cut what ends at one byte.
template <typename Score>
struct BestCut {
  Score score;
  uint32_t begin;  // where its last piece begins
  int32_t id;      // of that piece; −1: nothing ends here
};

// Fills *best with one entry for each byte offset 0 … word.size(); from the last entry `begin`
// leads back to 0 through the pieces. `word` is well-formed UTF-8. `trie` holds the pieces with
// their ids, by which `scores` goes; a character that is no piece costs `unknown_score` and has the
// id `unknown`. Where a sum leaves ±`reset_at`, the sums so far are taken relative to it, as
// SentencePiece keeps them small in long texts; infinity: never. Linear in the word.
template <typename Score>
void FindBestCuts(std::string_view word, const DoubleArray& trie, const std::vector<Score>& scores,
                  int32_t unknown, Score unknown_score, Score reset_at,
                  std::vector<BestCut<Score>>* best_cuts) {
  std::vector<BestCut<Score>>& best = *best_cuts;
  best.assign(word.size() + 1, {0, 0, -1});
  size_t furthest = 0;
  for (size_t begin = 0; begin < word.size();) {
    if (const Score sum = best[begin].score; sum < -reset_at || sum > reset_at) {
      for (size_t i = begin; i <= furthest; ++i) {
        if (best[i].id >= 0) best[i].score -= sum;
      }
    }
    const Score score_here = best[begin].score;
    const auto offer = [&](size_t end, Score score, int32_t id) {
      furthest = std::max(furthest, end);
      const Score sum = score + score_here;
      if (best[end].id < 0 || sum > best[end].score)
        best[end] = {sum, static_cast<uint32_t>(begin), id};
    };
    const size_t end_of_character =
        begin + unicode::SequenceLength(static_cast<unsigned char>(word[begin]));
    bool character_known = false;
    uint32_t node = DoubleArray::kRoot;
    for (size_t i = begin; i < word.size(); ++i) {
      node = trie.Next(node, static_cast<unsigned char>(word[i]));
      if (node == DoubleArray::kNone) break;
      const int32_t id = trie.Value(node);
      if (id < 0) continue;
      offer(i + 1, scores[id], id);
      character_known |= i + 1 == end_of_character;
    }
    if (!character_known) offer(end_of_character, unknown_score, unknown);
    begin = end_of_character;
  }
}

}  // namespace finetuned
