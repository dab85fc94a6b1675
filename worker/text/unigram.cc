// The Unigram model: of all ways to cut a word into tokens the one with the highest sum of scores
// (Kudo, 2018). Sums are formed in the order in which Hugging Face forms them, for among ways of
// equal score the rounding decides.
#include <algorithm>
#include <limits>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/base/status_macros.h"
#include "worker/text/double_array.h"
#include "worker/text/token_model.h"
#include "worker/text/viterbi.h"

namespace finetuned {
namespace {

// How much worse than the worst token an unknown character is.
constexpr double kUnknownPenalty = 10.0;

class UnigramModel : public TokenModel {
 public:
  absl::Status Read(const JsonFields& model) {
    FT_ASSIGN_OR_RETURN(const nlohmann::json* vocab, model.Array("vocab"));
    if (vocab->size() > kMaxTokenId) return model.Error("vocab", "has too many tokens");
    tokens_.reserve(vocab->size());
    double least = 0;
    for (size_t i = 0; i < vocab->size(); ++i) {
      const nlohmann::json& entry = (*vocab)[i];
      if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() ||
          !entry[1].is_number()) {
        return absl::InvalidArgumentError(
            absl::StrCat(model.path(), ".vocab[", i, "] must be [token, score]"));
      }
      tokens_.push_back(entry[0].get<std::string>());
      scores_.push_back(entry[1].get<double>());
      least = i == 0 ? scores_[0] : std::min(least, scores_[i]);
    }
    unknown_score_ = least - kUnknownPenalty;
    has_unknown_ = model.Has("unk_id");
    if (has_unknown_) {
      if (tokens_.empty()) return model.Error("vocab", "is empty, so there is no unk_id in it");
      FT_ASSIGN_OR_RETURN(const int64_t id, model.Integer("unk_id", 0, token_count() - 1));
      unknown_ = static_cast<int32_t>(id);
    }
    FT_ASSIGN_OR_RETURN(byte_fallback_, model.BoolOr("byte_fallback", false));
    std::vector<std::pair<std::string_view, int32_t>> keys;
    for (int32_t id = 0; id < token_count(); ++id) {
      ids_[tokens_[id]] = id;  // of equal tokens the last one counts
      keys.emplace_back(tokens_[id], id);
    }
    trie_.Build(std::move(keys));
    for (int byte = 0; byte < 256; ++byte) {
      fallback_ids_[byte] = TokenToId(absl::StrFormat("<0x%02X>", byte)).value_or(-1);
    }
    return absl::OkStatus();
  }

  std::optional<int32_t> TokenToId(std::string_view token) const override {
    const auto it = ids_.find(token);
    return it == ids_.end() ? std::nullopt : std::optional(it->second);
  }
  const std::string* IdToToken(int32_t id) const override {
    return id >= 0 && id < token_count() ? &tokens_[id] : nullptr;
  }
  int32_t token_count() const override { return static_cast<int32_t>(tokens_.size()); }
  int32_t id_limit() const override { return token_count(); }
  absl::Status CheckUnknownToken() const override {
    if (has_unknown_) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "model.unk_id is missing; text with unknown characters could not be tokenized");
  }

 protected:
  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids,
                    std::vector<uint32_t>* lengths) const override {
    thread_local std::vector<BestCut<double>> best;
    FindBestCuts(word, trie_, scores_, unknown_, unknown_score_,
                 std::numeric_limits<double>::infinity(), &best);
    thread_local std::vector<std::pair<uint32_t, uint32_t>> pieces;  // from the end to the front
    pieces.clear();
    bool in_unknown = false;
    for (auto end = static_cast<uint32_t>(word.size()); end > 0; end = best[end].begin) {
      const bool unknown = best[end].id == unknown_;
      if (unknown && in_unknown) {
        pieces.back().first = best[end].begin;  // unknown ones side by side are one
      } else {
        pieces.emplace_back(best[end].begin, end);
      }
      in_unknown = unknown;
    }
    for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
      const int32_t id = best[piece->second].id;
      if (id != unknown_) {
        Add(id, piece->second - piece->first, ids, lengths);
      } else {
        AddUnknown(word.substr(piece->first, piece->second - piece->first), ids, lengths);
      }
    }
    // One enormous word must not keep its memory for the rest of the thread's life.
    if (best.capacity() > (1 << 16)) std::vector<BestCut<double>>().swap(best);
  }

 private:
  static void Add(int32_t id, uint32_t length, std::vector<int32_t>& ids,
                  std::vector<uint32_t>* lengths) {
    ids.push_back(id);
    if (lengths != nullptr) lengths->push_back(length);
  }

  // A stretch of unknown tokens; joined they may spell a token after all.
  void AddUnknown(std::string_view text, std::vector<int32_t>& ids,
                  std::vector<uint32_t>* lengths) const {
    if (const std::optional<int32_t> id = TokenToId(text); id.has_value())
      return Add(*id, static_cast<uint32_t>(text.size()), ids, lengths);
    const bool as_bytes = byte_fallback_ && std::all_of(text.begin(), text.end(), [this](char c) {
                            return fallback_ids_[static_cast<unsigned char>(c)] >= 0;
                          });
    if (!as_bytes) return Add(unknown_, static_cast<uint32_t>(text.size()), ids, lengths);
    for (const char c : text) Add(fallback_ids_[static_cast<unsigned char>(c)], 1, ids, lengths);
  }

  std::vector<std::string> tokens_;                     // by id
  std::vector<double> scores_;                          // by id
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // views of tokens_
  DoubleArray trie_;
  double unknown_score_ = 0;
  bool has_unknown_ = false;
  int32_t unknown_ = 0;
  bool byte_fallback_ = false;
  int32_t fallback_ids_[256];  // of "<0x00>" … "<0xFF>", −1 when absent
};

}  // namespace

absl::StatusOr<std::unique_ptr<TokenModel>> MakeUnigram(const JsonFields& model) {
  auto unigram = std::make_unique<UnigramModel>();
  FT_RETURN_IF_ERROR(unigram->Read(model));
  return unigram;
}

}  // namespace finetuned
