// What a model directory holds, without loading it: config.json and the safetensors headers,
// checked against each other. Used by validate, inspect, planning and export.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "worker/models/causal_lm.h"

namespace finetuned {

struct LinearInfo {
  std::string name;  // "model.layers.0.self_attn.q_proj"
  int64_t in_features = 0, out_features = 0;
};

struct ModelSummary {
  ModelConfig config;
  std::vector<LinearInfo> linears;  // LoRA-able ones, in model order
  std::string dtype;              // of most weights in the files: "bfloat16", "float16", "float32"
  int64_t parameters = 0;         // tied weights once
  int64_t linear_parameters = 0;  // weights of `linears`: what 4 bits would hold
  int64_t embedding_parameters = 0;  // token embedding, and the head when it is not tied
  int64_t other_parameters = 0;      // norms and biases
  int64_t file_bytes = 0;            // tensors in the files
  int64_t shards = 0;
};

// Checks that every tensor the architecture needs is there with the right shape and a floating
// dtype. Throws std::runtime_error naming file, tensor or config key.
ModelSummary InspectModelDir(const std::string& model_dir);

// The names of config.json's "architectures" that can be loaded, sorted.
std::vector<std::string> SupportedArchitectures();

}  // namespace finetuned
