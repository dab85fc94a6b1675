#include "worker/text/token_model.h"

#include <atomic>

#include "proto/base/status_macros.h"
#include "worker/text/bpe.h"
#include "worker/text/word_cache.h"

namespace finetuned {
namespace {

std::atomic<uint32_t> next_serial{1};

}  // namespace

TokenModel::TokenModel() : serial_(next_serial.fetch_add(1)) {}

void TokenModel::Tokenize(std::string_view word, std::vector<int32_t>& ids,
                          std::vector<uint32_t>* lengths) const {
  if (word.empty()) return;
  if (!WordCache::Fits(word) || (lengths != nullptr && !LengthsKnown()))
    return TokenizeWord(word, ids, lengths);
  WordCache::Slot& slot = WordCache::SlotOf(serial_, word);
  const size_t before = ids.size();
  if (slot.Holds(serial_, word)) {
    ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
  } else {
    TokenizeWord(word, ids, nullptr);
    slot.Store(serial_, word, ids.data() + before, ids.size() - before);
  }
  if (lengths == nullptr) return;
  for (size_t i = before; i < ids.size(); ++i) lengths->push_back(LengthOf(ids[i]));
}

absl::StatusOr<std::unique_ptr<TokenModel>> MakeTokenModel(const JsonFields& model) {
  const nlohmann::json* vocab = model.Find("vocab");
  const char* untyped = model.Has("merges")                     ? "BPE"
                        : vocab != nullptr && vocab->is_array() ? "Unigram"
                        : model.Has("max_input_chars_per_word") ? "WordPiece"
                        : model.Has("unk_token")                ? "WordLevel"
                                                                : "";
  FT_ASSIGN_OR_RETURN(const std::string type, model.StringOr("type", untyped));
  if (type == "BPE") return BpeModel::FromJson(model);
  if (type == "Unigram") return MakeUnigram(model);
  if (type == "WordPiece") return MakeWordPiece(model);
  if (type == "WordLevel") return MakeWordLevel(model);
  return UnknownComponent(model, type, "model", "BPE, Unigram, WordPiece, WordLevel");
}

}  // namespace finetuned
