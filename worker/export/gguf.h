// GGUF files of Llama-family models (LlamaForCausalLM: Llama 2 and 3.x, SmolLM, …), written
// natively for llama.cpp: weights as F32, F16, BF16 or Q8_0 with tokenizer, merges, special tokens
// and chat template in one file. Keys and tensor names are those of llama.cpp's
// convert_hf_to_gguf.py; what a GGUF file cannot say is an error (gguf_tokenizer.h, gguf_llama.h).
//
// Tensors are streamed: memory is a few MiB beside the mapped model. Norms, biases and other 1-D
// tensors stay F32; a matrix whose rows do not divide into Q8_0's blocks of 32 becomes F16, as in
// llama.cpp's converter, and is named in the notes.
//
// Errors (absl::Status; no exceptions leave these functions): INVALID_ARGUMENT what is wrong in the
// model directory; UNIMPLEMENTED what GGUF or llama.cpp cannot hold; CANCELLED; DATA_LOSS a GGUF
// file that is damaged or differs from its source; RESOURCE_EXHAUSTED a full disk, and the other
// codes of ErrnoStatus. Any thread, one call at a time a file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "worker/export/gguf_encoding.h"

namespace finetuned {

struct GgufRequest {
  std::string model_dir;  // Hugging Face directory: merged, or a base model
  std::string
      output_path;  // replaced when the new file is complete and synced; untouched on any error
  GgufType type = GgufType::kQ8_0;
  // Null or an object. name, description, author, organization, license and url become general.*;
  // base_model, a text or an object with name, organization, version and repo_url, becomes
  // general.base_model.0.*; everything else finetuned.* (numbers, truth values and texts as such,
  // the rest as JSON text).
  nlohmann::json provenance;
};

struct GgufReport {
  int64_t tensors = 0, bytes = 0;
  std::vector<std::string>
      notes;  // for people: where llama.cpp behaves differently from the directory
};

// `progress` counts tensors and names the one being written; `cancelled` is asked every few MiB.
// Either may be empty.
absl::StatusOr<GgufReport> WriteGguf(
    const GgufRequest& request,
    const std::function<void(int64_t done, int64_t total, const std::string& text)>& progress,
    const std::function<bool()>& cancelled);

struct GgufCheck {
  int64_t tensors = 0;
  double max_relative_error = 0;  // worst tensor: max |dequantized − source| / max |source|
};

// Reads the file back: header, every key, shape, type and place of every tensor, and every value
// dequantized against the source within the type's own rounding. DATA_LOSS names the first
// difference.
absl::StatusOr<GgufCheck> CheckGguf(const GgufRequest& request);

}  // namespace finetuned
