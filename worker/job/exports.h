// The stages merging and exporting: a trained adapter in the formats of spec.export, each read back and compared after it
// was written. Shared by the recipes of finetune, export and merge.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"
#include "worker/job/stage_runner.h"

namespace finetuned {

struct ExportInputs {
  std::string model_dir;       // the base
  std::string adapter_dir;     // PEFT
  std::string adapter_sha256;  // of adapter_model.safetensors: what the results of both stages depend on
  // Token ids that the merged model is compared on; at least one, none empty.
  std::vector<std::vector<int32_t>> prompts;
  nlohmann::json provenance;   // into model card and GGUF
};

// Runs both stages as far as the formats ask for them and adds to run.result().exports. A format that does not pass its check fails the job with
// MERGE_MISMATCH or EXPORT_FAILED and is kept aside, out of the artifacts. CANCELLED when a stop was requested.
absl::Status WriteExports(StageRunner& run, const ExportInputs& inputs);

}  // namespace finetuned
