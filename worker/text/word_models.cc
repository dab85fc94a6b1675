// Models that look words up: WordLevel as a whole, WordPiece (Schuster and Nakajima, 2012) by the
// longest token from the front.
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/text/double_array.h"
#include "worker/text/token_model.h"
#include "worker/text/unicode.h"
#include "worker/text/vocabulary.h"

namespace finetuned {
namespace {

// What both have: a vocabulary and an unknown token that stands for a whole word.
class LookupModel : public TokenModel {
 public:
  virtual absl::Status Read(const JsonFields& model) {
    FT_RETURN_IF_ERROR(vocabulary_.Read(model));
    FT_ASSIGN_OR_RETURN(unknown_token_, model.String("unk_token"));
    unknown_ = vocabulary_.IdOf(unknown_token_);
    return absl::OkStatus();
  }
  std::optional<int32_t> TokenToId(std::string_view token) const override {
    return vocabulary_.IdOf(token);
  }
  const std::string* IdToToken(int32_t id) const override { return vocabulary_.TokenOf(id); }
  int32_t token_count() const override { return vocabulary_.size(); }
  int32_t id_limit() const override { return vocabulary_.id_limit(); }
  absl::Status CheckUnknownToken() const override {
    if (unknown_.has_value()) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "model.unk_token is '", unknown_token_,
        "', which model.vocab does not hold; text with unknown words could not be tokenized"));
  }

 protected:
  void AddWord(int32_t id, std::string_view word, std::vector<int32_t>& ids,
               std::vector<uint32_t>* lengths) const {
    ids.push_back(id);
    if (lengths != nullptr) lengths->push_back(static_cast<uint32_t>(word.size()));
  }

  Vocabulary vocabulary_;
  std::string unknown_token_;
  std::optional<int32_t> unknown_;
};

class WordLevelModel : public LookupModel {
 protected:
  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids,
                    std::vector<uint32_t>* lengths) const override {
    const std::optional<int32_t> id = vocabulary_.IdOf(word);
    AddWord(id.has_value() ? *id : *unknown_, word, ids, lengths);
  }
};

class WordPieceModel : public LookupModel {
 public:
  absl::Status Read(const JsonFields& model) override {
    FT_RETURN_IF_ERROR(LookupModel::Read(model));
    FT_ASSIGN_OR_RETURN(const std::string prefix, model.String("continuing_subword_prefix"));
    FT_ASSIGN_OR_RETURN(const int64_t limit,
                        model.Integer("max_input_chars_per_word", 0, INT64_MAX));
    max_characters_ = static_cast<size_t>(limit);
    std::vector<std::pair<std::string_view, int32_t>> keys;
    for (int32_t id = 0; id < vocabulary_.id_limit(); ++id) {
      if (const std::string* token = vocabulary_.TokenOf(id)) keys.emplace_back(*token, id);
    }
    trie_.Build(std::move(keys));
    continuation_ = trie_.Walk(prefix);
    return absl::OkStatus();
  }

 protected:
  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids,
                    std::vector<uint32_t>* lengths) const override {
    const size_t before = ids.size(), before_lengths = lengths == nullptr ? 0 : lengths->size();
    size_t begin = TooLong(word) ? SIZE_MAX : 0;
    while (begin < word.size()) {
      uint32_t node = begin == 0 ? DoubleArray::kRoot : continuation_;
      int32_t id = -1;
      size_t end = begin;
      for (size_t i = begin; i < word.size() && node != DoubleArray::kNone; ++i) {
        node = trie_.Next(node, static_cast<unsigned char>(word[i]));
        if (node == DoubleArray::kNone || trie_.Value(node) < 0) continue;
        id = trie_.Value(node);
        end = i + 1;
      }
      if (id < 0) {
        begin = SIZE_MAX;
        break;
      }
      AddWord(id, word.substr(begin, end - begin), ids, lengths);
      begin = end;
    }
    if (begin != SIZE_MAX) return;
    // One piece that is unknown makes the whole word unknown.
    ids.resize(before);
    if (lengths != nullptr) lengths->resize(before_lengths);
    AddWord(*unknown_, word, ids, lengths);
  }

 private:
  bool TooLong(std::string_view word) const {
    size_t characters = 0;
    for (size_t i = 0; i < word.size() && characters <= max_characters_; ++characters)
      i += unicode::SequenceLength(static_cast<unsigned char>(word[i]));
    return characters > max_characters_;
  }

  size_t max_characters_ = 0;
  DoubleArray trie_;
  uint32_t continuation_ = 0;  // the trie's node behind continuing_subword_prefix, or kNone
};

template <typename Model>
absl::StatusOr<std::unique_ptr<TokenModel>> Make(const JsonFields& fields) {
  auto model = std::make_unique<Model>();
  FT_RETURN_IF_ERROR(model->Read(fields));
  return model;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenModel>> MakeWordPiece(const JsonFields& model) {
  return Make<WordPieceModel>(model);
}

absl::StatusOr<std::unique_ptr<TokenModel>> MakeWordLevel(const JsonFields& model) {
  return Make<WordLevelModel>(model);
}

}  // namespace finetuned
