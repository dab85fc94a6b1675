// Text to token ids and back, exactly as Hugging Face `tokenizers` does it from the same
// tokenizer.json.
//
// Built: everything a tokenizer.json of `tokenizers` 0.23 can say; a component of another type is
// refused by name. Refused too is what cannot give the same ids each time or would fail on some
// text: BPE dropout, a model without unknown token that could need one. The file's truncation and
// padding settings are ignored: what a training sample's length may be is decided elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/text/added_tokens.h"

namespace finetuned {

// Immutable after construction; all methods may be called from any number of threads.
class Tokenizer {
 public:
  using AddedToken = finetuned::AddedToken;

  // A tokenizer.json, a SentencePiece model, a rank file of tiktoken or a tekken.json, told by its
  // content; or a directory that holds one (tokenizer.json, tokenizer.model, tekken.json: the first
  // there is). Special tokens that the file lacks are taken from a tokenizer_config.json beside it,
  // unless it is a tokenizer.json. NOT_FOUND etc. when it cannot be read; otherwise as FromJson.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromFile(const std::string& path);
  // The content of such a file, and of a tokenizer_config.json beside it if there is one; `name` as
  // in FromJson.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromBytes(
      std::string_view bytes, std::string_view name, std::string_view tokenizer_config = "");

  // `name` stands for the text in errors, such as its path. INVALID_ARGUMENT: not JSON, a field of
  // the wrong type, an id out of range or used twice, a merge of unknown tokens …; UNIMPLEMENTED: a
  // component that is not built yet, with those that are. Every error names the field.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromJson(std::string_view json,
                                                             std::string_view name);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  struct Encoding {
    std::vector<int32_t> ids;
    // For each id the bytes [begin, end) of the original text it stands for. Ordered by their begin
    // as long as the normalizer does not reorder. A token made of part of a character covers just
    // its bytes where the text was not rewritten. Ids that add_special_tokens put in have an empty
    // range at the text's beginning or end; so does a token that stands for nothing in the text.
    std::vector<std::pair<size_t, size_t>> offsets;
  };

  // Token ids of `text`, which is at most 4 GB of UTF-8; each ill-formed sequence counts as U+FFFD.
  // `add_special_tokens` adds what the file's post-processor adds (BOS …).
  std::vector<int32_t> Encode(std::string_view text, bool add_special_tokens) const;
  Encoding EncodeWithOffsets(std::string_view text, bool add_special_tokens) const;

  // Text of `ids`. Unknown ids are left out, special tokens too if asked, but not one that has
  // `normalized` and a content that the normalizer changes, as in Hugging Face.
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const;

  // Highest id + 1, added tokens included: the least number of rows an embedding needs.
  int32_t vocab_size() const;
  std::optional<int32_t> TokenToId(std::string_view token) const;
  // The token as the vocabulary spells it ("Ġthe"); an added token's content.
  std::optional<std::string> IdToToken(int32_t id) const;
  // True for added tokens marked special.
  bool IsSpecial(int32_t id) const;
  // In the order of the file. Their ids are those that Hugging Face gives them: that of the
  // vocabulary or the next free one, even where the file says another.
  const std::vector<AddedToken>& added_tokens() const;

  // For exporting the vocabulary: the merges in order of rank.
  absl::Span<const std::pair<std::string, std::string>> merges() const;
  // llama.cpp's name of the pre-tokenizer (`tokenizer.ggml.pre`): "gpt-2", "llama-bpe", "qwen2",
  // "smollm"; "" when none of these is the same.
  std::string pre_tokenizer_name() const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<Parts> parts);
  void EncodeTo(std::string_view text, bool add_special_tokens, Encoding& out,
                bool with_offsets) const;

  const std::unique_ptr<const Parts> parts_;
};

}  // namespace finetuned
