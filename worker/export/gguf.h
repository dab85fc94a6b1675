// GGUF (ggml-org/ggml, docs/gguf.md), written natively for llama-architecture models: F32, F16, BF16, Q8_0, with tokenizer,
// merges, special tokens and chat template. Quantized blocks equal ggml's.
//
// Errors: std::runtime_error naming what llama.cpp could not hold (architecture, tokenizer) and what is supported.
#pragma once

#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "worker/export/merge.h"

namespace finetuned {

enum class GgufType { kF32, kF16, kBf16, kQ8_0 };

// "f32", "f16", "bf16", "q8_0"; throws std::invalid_argument listing them.
GgufType ParseGgufType(const std::string& name);

struct GgufRequest {
  std::string model_dir;    // merged (or base) Hugging Face directory
  std::string output_path;  // written beside it, fsynced, renamed
  GgufType type = GgufType::kQ8_0;
  nlohmann::json provenance;  // general.* keys: name, base model, dataset hash, spec
};

void WriteGguf(const GgufRequest& request, const ExportCallbacks& callbacks);

struct GgufCheck {
  bool passed = false;
  std::string detail;          // what differs, on failure
  int64_t tensors = 0;
  double max_relative_error = 0;  // of dequantized against source weights, over tensors
};

// Reads the file back: header, every key, every tensor dequantized against the source within the type's own rounding.
GgufCheck CheckGguf(const GgufRequest& request);

}  // namespace finetuned
