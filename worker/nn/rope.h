// Rotary position embedding: frequencies by Hugging Face's `rope_type`, and the angles of a batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "nlohmann/json.hpp"

namespace finetuned {

// What config.json says. `scaling` is null or the block with rope_type (or type): default, linear, dynamic, llama3, yarn.
struct RopeConfig {
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double theta = 10000;
  nlohmann::json scaling;
};

// cos and sin by token, [t, e/2] fp32, each scaled by the type's attention factor.
struct RotaryTable {
  at::Tensor cos, sin;
};

class Rope {
 public:
  // Throws std::runtime_error for an unknown type or a missing or senseless field.
  explicit Rope(const RopeConfig& config);
  // position_ids [t] int64; max_position: the largest of them, which decides the base of `dynamic`.
  RotaryTable Table(const at::Tensor& position_ids, int64_t max_position) const;
  // [e/2] fp32 on the host for sequences of `length`. Formulas: transformers modeling_rope_utils.py.
  at::Tensor InverseFrequencies(int64_t length) const;
  double attention_factor() const { return attention_factor_; }

 private:
  RopeConfig config_;
  std::string type_ = "default";
  at::Tensor inverse_frequencies_;
  double attention_factor_ = 1;
};

}  // namespace finetuned
