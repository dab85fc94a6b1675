// What turns one word into token ids: the `model` of a tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/text/json_fields.h"

namespace finetuned {

// Const use is thread-safe. Ids of recent words are kept per thread (word_cache.h).
class TokenModel {
 public:
  // Ids above this are refused: tables are indexed by id, and a damaged file must not ask for 100
  // GB of them.
  static constexpr int64_t kMaxTokenId = (1 << 24) - 1;

  virtual ~TokenModel() = default;

  // Appends the ids of one word and, if asked, the number of the word's bytes each one covers.
  // Words are UTF-8, or any bytes after TakeRawBytes(). A character without token and without
  // unknown token is left out, its bytes counting to the token before.
  void Tokenize(std::string_view word, std::vector<int32_t>& ids,
                std::vector<uint32_t>* lengths) const;

  virtual std::optional<int32_t> TokenToId(std::string_view token) const = 0;
  // The token, or null when the id is not of this vocabulary.
  virtual const std::string* IdToToken(int32_t id) const = 0;
  // Number of tokens in the vocabulary and the highest id + 1, which differ when ids have gaps.
  virtual int32_t token_count() const = 0;
  virtual int32_t id_limit() const = 0;
  // FAILED_PRECONDITION when a word could need an unknown token that the vocabulary lacks.
  virtual absl::Status CheckUnknownToken() const = 0;

  // True when the model can spell raw bytes in the byte-level alphabet itself, as
  // PreTokenization::raw_bytes wants.
  virtual bool CanTakeRawBytes() const { return false; }
  // From now on words are raw bytes. REQUIRES: CanTakeRawBytes(); call before the first Tokenize().
  virtual void TakeRawBytes() {}

  // The merges of a byte-pair encoding in order of rank; none of other models.
  virtual absl::Span<const std::pair<std::string, std::string>> merges() const { return {}; }

 protected:
  TokenModel();

  // As Tokenize, for any word but the empty one.
  virtual void TokenizeWord(std::string_view word, std::vector<int32_t>& ids,
                            std::vector<uint32_t>* lengths) const = 0;
  // Appends what `tokenize` appends to `ids` for this word, from this thread's cache if it has been
  // asked for under this `serial` before.
  static void Cached(uint32_t serial, std::string_view word, std::vector<int32_t>& ids,
                     absl::FunctionRef<void()> tokenize);
  // A serial that no other model, and no other use of one, has.
  static uint32_t NewSerial();

  // True when what an id covers is told by the id alone (LengthOf), so that lengths need no cache.
  virtual bool LengthsKnown() const { return false; }
  virtual uint32_t LengthOf(int32_t id) const { return 0; }

 private:
  const uint32_t serial_;  // distinguishes models in the cache of a thread
};

// Reads the `model` value of a tokenizer.json: BPE, Unigram, WordPiece, WordLevel; a file without
// `type` is told by its fields, as Hugging Face does. INVALID_ARGUMENT names what is wrong: a type,
// an id out of range or used twice, a merge whose parts or result are not in the vocabulary …;
// UNIMPLEMENTED an unknown model or one that makes ids random (dropout).
absl::StatusOr<std::unique_ptr<TokenModel>> MakeTokenModel(const JsonFields& model);

// Each reads its own kind; see MakeTokenModel.
absl::StatusOr<std::unique_ptr<TokenModel>> MakeUnigram(const JsonFields& model);
absl::StatusOr<std::unique_ptr<TokenModel>> MakeWordPiece(const JsonFields& model);
absl::StatusOr<std::unique_ptr<TokenModel>> MakeWordLevel(const JsonFields& model);

}  // namespace finetuned
