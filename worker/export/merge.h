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
  double max_relative_error = 0;  // max over prompts of ‖merged − adapter‖ / ‖adapter‖ of the logits
  double tolerance = 0;           // 1e-5 for fp32, 2e-2 for 16-bit
  std::string detail;             // on failure: the first tensor that is wrong, or how far the logits are off
};

// Reads the merged directory back. Every stored tensor must equal base + adapter, rounded once, to the bit; one tensor is in
// memory at a time. With `device`, also the logits of the stored weights against base + adapter on `prompts` (token ids,
// none empty), both computed in fp32 whatever the stored dtype: a whole fp32 model is held there. In 16 bits the
// activations of an unmerged and a merged model round apart by more than the stored weights do, so computing in that dtype
// would say nothing about the merge.
MergeCheck CheckMerged(const MergeRequest& request, const std::vector<std::vector<int32_t>>& prompts,
                       const std::optional<at::Device>& device);

}  // namespace finetuned
