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
#include "worker/text/bpe_merge.h"
#include "worker/text/json_fields.h"
#include "worker/text/pair_table.h"
#include "worker/text/token_model.h"
#include "worker/text/vocabulary.h"

namespace finetuned {

// Splits words into tokens by applying merges, the earliest in the list first (Sennrich et al.,
// 2016), with all options of Hugging Face's BPE.
class BpeModel : public TokenModel {
 public:
  // Reads the `model` value. INVALID_ARGUMENT names what is wrong: a type, an id out of range or
  // used twice, a merge whose parts or result are not in the vocabulary. UNIMPLEMENTED: dropout,
  // which makes ids random, unless it is 1 and leaves every character a token.
  static absl::StatusOr<std::unique_ptr<TokenModel>> FromJson(const JsonFields& model);

  // A model of tiktoken's kind: words that are tokens are taken whole; else the two neighbours that
  // together are the token of the least id are merged. Takes raw bytes already. `tokens` are the
  // bytes by id; an empty one leaves its id out. merges() stays empty. INVALID_ARGUMENT when a
  // token stands there twice or one of the 256 bytes is missing.
  static absl::StatusOr<std::unique_ptr<TokenModel>> FromRanks(std::vector<std::string> tokens);

  bool CanTakeRawBytes() const override {
    return !byte_fallback_ && prefix_.empty() && suffix_.empty();
  }
  void TakeRawBytes() override;
  absl::Status CheckUnknownToken() const override;
  std::optional<int32_t> TokenToId(std::string_view token) const override {
    return vocabulary_.IdOf(token);
  }
  const std::string* IdToToken(int32_t id) const override { return vocabulary_.TokenOf(id); }
  int32_t token_count() const override { return vocabulary_.size(); }
  int32_t id_limit() const override { return vocabulary_.id_limit(); }
  absl::Span<const std::pair<std::string, std::string>> merges() const override { return merges_; }

 protected:
  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids,
                    std::vector<uint32_t>* lengths) const override;
  // With a complete byte alphabet a token's length is that of its spelling.
  bool LengthsKnown() const override { return raw_bytes_ && complete_alphabet_; }
  uint32_t LengthOf(int32_t id) const override {
    return static_cast<uint32_t>(raw_tokens_[id].size());
  }

 private:
  using Symbol = BpeSymbol;

  absl::Status ReadMerges(const JsonFields& model);
  // Allows cutting between characters (bytes, after TakeRawBytes) that no merge joins.
  void FindJoints();
  void TokenizeSegment(std::string_view word, std::vector<int32_t>& ids,
                       std::vector<uint32_t>* lengths) const;
  // The character (byte, after TakeRawBytes) at `position`, which moves past it.
  char32_t NextUnit(std::string_view word, size_t& position) const;
  void InitialSymbols(std::string_view word, std::vector<Symbol>& symbols) const;

  Vocabulary vocabulary_;
  std::vector<std::pair<std::string, std::string>> merges_;
  PairTable pairs_;
  std::string unk_token_;
  std::optional<int32_t> unk_id_;
  bool has_unk_ = false;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::optional<JointTable> joints_;  // nothing when words must not be cut
  const uint32_t segment_serial_ = NewSerial();
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
