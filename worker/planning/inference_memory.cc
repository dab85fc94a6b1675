#include "worker/planning/inference_memory.h"

#include <algorithm>
#include <stdexcept>

#include "worker/planning/planned_adapters.h"

namespace finetuned {
namespace {

constexpr int64_t kBlock = 64, kNestedBlock = 256;  // worker/quantization/quantized_tensor.h
constexpr int64_t kPromptTokens = 512;              // room for a prompt, whose length is not known before it is rendered

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

uint64_t AdapterBytes(const v1::JobSpec& spec, const ModelSummary& model) {
  int64_t values = 0;
  try {
    for (const PlannedAdapter& adapter : PlanAdapters(spec.lora(), model)) values += adapter.parameters();
  } catch (const std::invalid_argument&) {
    // CheckAgainstModel names the target that matches nothing.
  }
  return static_cast<uint64_t>(4 * values);
}

// Keys and values of one token.
int64_t CacheValues(const ModelConfig& config) {
  return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
}

v1::MemoryEstimate Summed(v1::MemoryEstimate memory, const DeviceProfile& device, uint64_t context) {
  (*memory.mutable_device_bytes())["context"] = context;
  uint64_t peak = 0;
  for (const auto& [category, size] : memory.device_bytes()) peak += size;
  memory.set_device_peak_bytes(peak);
  memory.set_host_peak_bytes(device.cuda ? kCpuProcessBytes : peak);
  return memory;
}

}  // namespace

void AddBaseBytes(const ModelSummary& model, int64_t value_bytes, bool load_in_4bit, const v1::Quantization& quantization,
                  BytesByCategory* bytes) {
  (*bytes)["embeddings"] = static_cast<uint64_t>(model.embedding_parameters * value_bytes);
  (*bytes)["weights"] = static_cast<uint64_t>(model.other_parameters * value_bytes);
  if (!load_in_4bit) {
    (*bytes)["weights"] += static_cast<uint64_t>(model.linear_parameters * value_bytes);
    return;
  }
  uint64_t packed = 0, scales = 0;
  for (const LinearInfo& linear : model.linears) {
    const int64_t values = linear.in_features * linear.out_features;
    const int64_t blocks = CeilDiv(values, kBlock);
    packed += static_cast<uint64_t>(CeilDiv(values, 2));
    scales += static_cast<uint64_t>(quantization.bnb_4bit_use_double_quant() ? blocks + 4 * CeilDiv(blocks, kNestedBlock) : 4 * blocks);
  }
  (*bytes)["quantized"] = packed;
  (*bytes)["scales"] = scales;
}

v1::MemoryEstimate MergeCheckMemory(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device) {
  v1::MemoryEstimate memory;
  auto& bytes = *memory.mutable_device_bytes();
  AddBaseBytes(model, sizeof(float), /*load_in_4bit=*/false, spec.quantization(), &bytes);
  bytes["adapters"] = AdapterBytes(spec, model);
  // Logits of both models, and one of them in fp64 twice for the comparison.
  bytes["logits"] = static_cast<uint64_t>(kCheckedTokens * model.config.vocab_size * (2 * 2 * 4 + 2 * 8));
  bytes["workspace"] = static_cast<uint64_t>(kCheckedTokens * 8 * model.config.intermediate_size * 4);
  return Summed(std::move(memory), device, device.cuda ? kCudaContextBytes : kCpuProcessBytes);
}

v1::MemoryEstimate MergeMemory(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device) {
  v1::MemoryEstimate memory = MergeCheckMemory(spec, model, device);
  if (static_cast<double>(memory.device_peak_bytes()) <= 0.9 * static_cast<double>(device.free_bytes)) return memory;
  // Then logits are not compared: a tensor of the base, its fp32 form, the sum and what is stored, at most.
  memory.clear_device_bytes();
  (*memory.mutable_device_bytes())["weights"] =
      static_cast<uint64_t>(4 * sizeof(float) * std::max(model.config.vocab_size, model.config.intermediate_size) * model.config.hidden_size);
  return Summed(std::move(memory), device, device.cuda ? kCudaContextBytes : kCpuProcessBytes);
}

v1::MemoryEstimate GenerateMemory(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device) {
  const int64_t value_bytes = spec.bf16().value() ? 2 : 4;
  const int64_t prompts = std::max(1, spec.source().prompts_size());
  v1::MemoryEstimate memory;
  auto& bytes = *memory.mutable_device_bytes();
  AddBaseBytes(model, value_bytes, spec.quantization().load_in_4bit().value(), spec.quantization(), &bytes);
  bytes["adapters"] = AdapterBytes(spec, model);
  const int64_t tokens = std::min<int64_t>(model.config.max_position_embeddings,
                                           kPromptTokens + spec.evaluation().generation().max_new_tokens());
  bytes["activations"] = static_cast<uint64_t>(prompts * tokens * CacheValues(model.config) * value_bytes);
  bytes["logits"] = static_cast<uint64_t>(prompts * model.config.vocab_size * 4 * 3);
  bytes["workspace"] = static_cast<uint64_t>(prompts * kPromptTokens * 8 * model.config.intermediate_size * value_bytes);
  return Summed(std::move(memory), device, device.cuda ? kCudaContextBytes : kCpuProcessBytes);
}

bool NeedsMerging(const v1::JobSpec& spec) {
  const auto& formats = spec.export_().formats();
  return std::any_of(formats.begin(), formats.end(), [](const std::string& format) { return format == "merged" || format == "gguf"; });
}

}  // namespace finetuned
