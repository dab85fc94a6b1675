// The byte-pair-encoding model of a tokenizer.json.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/text/json_fields.h"
#include "worker/text/pair_table.h"

namespace finetuned {

// Splits words into tokens by applying merges, the earliest in the list first (Sennrich et al.,
// 2016), with all options of Hugging Face's BPE. Const use is thread-safe.
class BpeModel {
 public:
  // Ids above this are refused: tables are indexed by id, and a damaged file must not ask for 100
  // GB of them.
  static constexpr int64_t kMaxTokenId = (1 << 24) - 1;

  // Reads the `model` value. INVALID_ARGUMENT names what is wrong: a type, an id out of range or
  // used twice, a merge whose parts or result are not in the vocabulary. UNIMPLEMENTED: dropout,
  // which makes ids random.
  static absl::StatusOr<std::unique_ptr<BpeModel>> FromJson(const JsonFields& model);

  // True when the model can spell raw bytes in the byte-level alphabet itself, as
  // PreTokenization::raw_bytes wants.
  bool CanTakeRawBytes() const { return !byte_fallback_ && prefix_.empty() && suffix_.empty(); }
  // From now on words are raw bytes. REQUIRES: CanTakeRawBytes(); call before the first Tokenize().
  void TakeRawBytes();
  // FAILED_PRECONDITION when a word could need the unknown token and the vocabulary lacks it.
  absl::Status CheckUnknownToken() const;

  // Appends the ids of one word and, if asked, the number of the word's bytes each one covers.
  // Words are UTF-8, or any bytes after TakeRawBytes(). A character without token and without
  // unknown token is left out, as Hugging Face does; its bytes then count to the token before.
  void Tokenize(std::string_view word, std::vector<int32_t>& ids,
                std::vector<uint32_t>* lengths) const;

  std::optional<int32_t> TokenToId(std::string_view token) const;
  // The token, or null when the id is not of this vocabulary.
  const std::string* IdToToken(int32_t id) const;
  // Number of tokens in the vocabulary and the highest id + 1, which differ when ids have gaps.
  int32_t token_count() const { return static_cast<int32_t>(ids_.size()); }
  int32_t id_limit() const { return static_cast<int32_t>(tokens_.size()); }
  const std::vector<std::pair<std::string, std::string>>& merges() const { return merges_; }

 private:
  // A token on its way: id and bytes of the word it covers.
  struct Symbol {
    int32_t id;
    uint32_t length;
  };

  BpeModel();
  absl::Status ReadVocabulary(const JsonFields& model);
  absl::Status ReadMerges(const JsonFields& model);
  void TokenizeUncached(std::string_view word, std::vector<int32_t>& ids,
                        std::vector<uint32_t>* lengths) const;
  void InitialSymbols(std::string_view word, std::vector<Symbol>& symbols) const;
  void MergeShort(std::vector<Symbol>& symbols) const;
  void MergeLong(std::vector<Symbol>& symbols) const;

  // Distinguishes models in the per-thread word cache.
  const uint32_t serial_;
  std::vector<std::string> tokens_;                     // by id
  std::vector<bool> present_;                           // by id: whether the id is in use
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // views of tokens_
  std::vector<std::pair<std::string, std::string>> merges_;
  PairTable pairs_;
  std::string unk_token_;
  std::optional<int32_t> unk_id_;
  bool has_unk_ = false;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::string prefix_, suffix_;            // continuing_subword_prefix, end_of_word_suffix
  std::array<int32_t, 256> fallback_ids_;  // of "<0x00>" … "<0xFF>", −1 when absent

  // After TakeRawBytes().
  bool raw_bytes_ = false;
  std::array<int32_t, 256> byte_ids_;
  bool complete_alphabet_ = false;       // every byte has a token
  std::vector<std::string> raw_tokens_;  // by id, the bytes spelled; empty when not of the alphabet
  absl::flat_hash_map<std::string_view, int32_t> raw_ids_;  // views of raw_tokens_
};

}  // namespace finetuned
