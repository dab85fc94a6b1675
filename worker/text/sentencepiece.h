// SentencePiece models (`tokenizer.model`), BPE and Unigram, with the ids that the library itself
// gives (sentencepiece 0.2).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/text/tokenizer_parts.h"

namespace finetuned {

// The fields of a ModelProto that tokenizing needs. Defaults are those of the format.
struct SentencePieceProto {
  enum Type : int {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  enum ModelType : int { kUnigram = 1, kBpe = 2 };
  struct Piece {
    std::string text;
    float score = 0;
    int type = kNormal;
  };
  std::vector<Piece> pieces;  // by id
  int model_type = kUnigram;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  std::string unk_surface = " \u2047 ";
  std::string charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool has_denormalizer = false;
};

// INVALID_ARGUMENT when the bytes are no such message.
absl::StatusOr<SentencePieceProto> ParseSentencePieceProto(std::string_view bytes);

// The tokenizer that a model file describes. Control pieces become special added tokens: the text
// "<s>" is that token, as in Hugging Face, where the library itself would spell it. Nothing is put
// around a text. INVALID_ARGUMENT: no such file, a piece twice, no unknown piece, missing byte
// pieces; UNIMPLEMENTED: the model types word and char, unused pieces in a BPE, a denormalizer.
absl::StatusOr<TokenizerParts> ReadSentencePiece(std::string_view bytes);
absl::StatusOr<TokenizerParts> MakeSentencePiece(const SentencePieceProto& proto);

}  // namespace finetuned
