#include "worker/text/token_model.h"

#include <atomic>

#include "proto/base/status_macros.h"
#include "worker/text/bpe.h"
#include "worker/text/word_cache.h"

namespace finetuned {
namespace {

std::atomic<uint32_t> next_serial{1};

}  // namespace

TokenModel::TokenModel() : serial_(NewSerial()) {}

uint32_t TokenModel::NewSerial() { return next_serial.fetch_add(1); }

void TokenModel::Cached(uint32_t serial, std::string_view word, std::vector<int32_t>& ids,
                        absl::FunctionRef<void()> tokenize) {
  if (!WordCache::Fits(word)) return tokenize();
  WordCache::Slot& slot = WordCache::SlotOf(serial, word);
  if (slot.Holds(serial, word)) {
    ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
    return;
  }
  const size_t before = ids.size();
  tokenize();
  slot.Store(serial, word, ids.data() + before, ids.size() - before);
}

void TokenModel::Tokenize(std::string_view word, std::vector<int32_t>& ids,
                          std::vector<uint32_t>* lengths) const {
  if (word.empty()) return;
  if (lengths != nullptr && !LengthsKnown()) return TokenizeWord(word, ids, lengths);
  const size_t before = ids.size();
  Cached(serial_, word, ids, [&] { TokenizeWord(word, ids, nullptr); });
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
