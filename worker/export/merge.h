// Merge: W + scaling · B · A in fp32, module by module, streamed shard to shard; the whole model is never in memory. The
// result is a clean Hugging Face directory with the shard layout of the base.
//
// Errors: std::runtime_error naming file and tensor; ExportCancelled when `cancelled` says so.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "worker/models/causal_lm.h"

namespace finetuned {

class ExportCancelled : public std::runtime_error {
 public:
  ExportCancelled() : std::runtime_error("export cancelled") {}
};

struct ExportCallbacks {
  std::function<void(int64_t done, int64_t total, const std::string& text)> progress;  // unit "tensors"
  std::function<bool()> cancelled;
};

struct MergeRequest {
  std::string base_dir;     // Hugging Face directory
  std::string adapter_dir;  // PEFT directory
  std::string output_dir;   // replaced whole; written beside it and renamed when complete
  at::ScalarType dtype = at::kBFloat16;  // of the merged weights; tensors the base keeps in fp32 stay fp32
  // Merge into quantize→dequantize of the base (what the adapter was trained on) instead of the base itself.
  bool dequantized_base = false;
  QuantType quant_type = QuantType::kNf4;
  bool double_quant = true;
  nlohmann::json provenance;  // into the model card: base, data hash, spec, versions, metrics
};

struct MergeReport {
  int64_t tensors = 0, merged_modules = 0;
  uint64_t bytes = 0;
};

MergeReport Merge(const MergeRequest& request, const ExportCallbacks& callbacks);

struct MergeCheck {
  bool passed = false;
  bool compared_logits = false;
  // max over prompts of ‖other − adapter‖ / ‖adapter‖ of the logits, all computed in fp32:
  double merge_error = 0;     // of base + adapter summed in fp32; at most kMergeTolerance
  double rounding_shift = 0;  // of the stored weights: what rounding them to a 16-bit dtype does; 0 in fp32
  std::string detail;         // on failure: the first tensor that is wrong, or how far the logits are off
};
constexpr double kMergeTolerance = 1e-5;

// Reads the merged directory back. Every stored tensor must equal base + adapter, rounded once, to the bit; one tensor is in
// memory at a time. With `device` also the logits of base + adapter, merged in fp32, are compared with the unmerged ones on
// `prompts` (token ids, none empty); a whole fp32 model is held there, one after the other.
// What 16 bits do to the weights is reported, not judged: it is a property of the model (6e-2 of the logits' norm on a
// 135M model), the same for every correct merge.
MergeCheck CheckMerged(const MergeRequest& request, const std::vector<std::vector<int32_t>>& prompts,
                       const std::optional<at::Device>& device);

}  // namespace finetuned
