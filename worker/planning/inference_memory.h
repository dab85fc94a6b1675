// Memory of what runs a model without training it: the check after merging, and jobs of kind export, merge and generate.
#pragma once

#include <cstdint>
#include <string>

#include "finetuned/v1/types.pb.h"
#include "finetuned/v1/worker.pb.h"
#include "worker/models/model_summary.h"
#include "worker/planning/estimate.h"

namespace finetuned {

// What a process holds before the first tensor: a CUDA context with the kernels' code, or on the
// CPU the libraries themselves (resident size of an idle worker).
constexpr uint64_t kCudaContextBytes = uint64_t{512} << 20;
constexpr uint64_t kCpuProcessBytes = 450'000'000;

using BytesByCategory = google::protobuf::Map<std::string, uint64_t>;

// Adds what the frozen base takes: "embeddings", "weights", and in 4 bits "quantized" and "scales" for its linear layers
// (`quantization` resolved). value_bytes: of the compute dtype.
void AddBaseBytes(const ModelSummary& model, int64_t value_bytes, bool load_in_4bit, const v1::Quantization& quantization,
                  BytesByCategory* bytes);

// Device bytes by category at the peak. `spec` from ResolveAuto.
// Tokens of a prompt that a merged model is compared on, at most.
constexpr int64_t kCheckedTokens = 256;
// Comparing the logits of a merged model: one whole model in fp32.
v1::MemoryEstimate MergeCheckMemory(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device);
// A job that merges and exports: that comparison where it fits into the device's free memory, else the streaming alone.
v1::MemoryEstimate MergeMemory(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device);
// The base as training would hold it, adapters, keys and values of all prompts at once.
v1::MemoryEstimate GenerateMemory(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device);

// True when the formats need a merged model.
bool NeedsMerging(const v1::JobSpec& spec);

}  // namespace finetuned
