// A Hugging Face tokenizer as llama.cpp wants it in a GGUF file: the keys tokenizer.*.
//
// Two kinds of tokenizer.json can be said in GGUF:
//
//   gpt2    byte-level BPE whose pre-tokenizer is one that llama.cpp knows: gpt-2, llama-bpe (and
//   smaug-bpe, the same without
//           ignore_merges), qwen2, smollm. Which it is follows from the components in the file,
//           never from a model's name.
//   llama   SentencePiece's BPE: byte fallback, spaces as ▁, no pre-tokenizer. llama.cpp joins any
//   two neighbours whose
//           concatenation is a token, the best score first; the scores here repeat the order of the
//           merges. A file whose merges leave out a join that the vocabulary allows cannot be said
//           that way and is refused.
//
// llama.cpp's own tables remain: it takes the letters and digits of Unicode 16 for punctuation, and
// 's with a long s (ſ) is no contraction there. Apart from that its token ids are those of
// tokenizer.json (tests/reference/gguf_llama_cpp.py).
//
// Everything else is an error that names the component. Smaller differences that remain in
// llama.cpp are returned as notes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/export/gguf_file.h"

namespace finetuned {

struct GgufTokenizer {
  GgufKeys keys;
  std::vector<std::string> notes;  // for people: where llama.cpp's tokens may differ
};

// Reads tokenizer.json, and where they exist tokenizer_config.json, special_tokens_map.json,
// chat_template.jinja, generation_config.json and config.json. `rows` of the embedding: the
// vocabulary is filled up to it with unused tokens "[PADi]". NOT_FOUND without tokenizer.json;
// INVALID_ARGUMENT: a damaged file, more tokens than rows, one text for two ids; UNIMPLEMENTED: a
// tokenizer that GGUF or llama.cpp has no word for.
absl::StatusOr<GgufTokenizer> ReadGgufTokenizer(const std::string& model_dir, int64_t rows);

}  // namespace finetuned
