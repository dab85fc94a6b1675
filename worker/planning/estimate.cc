#include "worker/planning/estimate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <stdexcept>

#include "worker/planning/inference_memory.h"
#include "worker/planning/planned_adapters.h"

namespace finetuned {
namespace {

constexpr int64_t kLogitValues = 16 << 20;  // values of a chunk of logits, worker/nn/loss.cc

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::vector<PlannedAdapter> AdaptersOrNone(const v1::Lora& lora, const ModelSummary& model) {
  try {
    return PlanAdapters(lora, model);
  } catch (const std::invalid_argument&) {
    return {};  // CheckAgainstModel names the target that matches nothing
  }
}

// What the planned job computes with.
struct Shape {
  int64_t hidden, intermediate, query, key_value, heads, layers, vocabulary;
  int64_t tokens;  // of a micro-batch
  int64_t bytes;   // of a value in the compute dtype
  bool cuda, quantized, checkpointing;
};

// Values that the backward pass of one layer keeps per token, counted from what the layers of
// worker/nn save for it. d hidden, f intermediate, q = heads · head_dim, k = kv_heads · head_dim:
//   two norms: their inputs 2d, their outputs 2d (inputs of the linears that follow)
//   attention: fused Q|K|V q + 2k, output q; on CUDA also the rotated copies q + k
//   MLP:       gate|up 2f, product f; on CUDA also silu(gate) f
//   adapters:  x Aᵀ, one value a rank; with dropout also the mask of each adapter's input
// and in fp32: log-sum-exp of each head, 1/rms of each norm. In bytes.
double KeptByLayer(const Shape& s, double rank_sum, double dropout_inputs) {
  double values = 4.0 * s.hidden + 2.0 * s.query + 2.0 * s.key_value + 3.0 * s.intermediate;
  if (s.cuda) values += s.query + s.key_value + s.intermediate;
  values += rank_sum + dropout_inputs;
  return values * static_cast<double>(s.bytes) + 4.0 * static_cast<double>(s.heads + 2);
}

uint64_t ActivationBytes(const Shape& s, const v1::JobSpec& spec,
                         const std::vector<PlannedAdapter>& adapters) {
  double ranks = 0, inputs = 0;
  for (const PlannedAdapter& adapter : adapters) {
    ranks += static_cast<double>(adapter.rank);
    inputs += static_cast<double>(adapter.linear->in_features);
  }
  const double layers = static_cast<double>(s.layers);
  const double dropout_inputs = spec.lora().dropout().value() > 0 ? inputs / layers : 0;
  const double layer = KeptByLayer(s, ranks / layers, dropout_inputs);
  const double tokens = static_cast<double>(s.tokens);
  if (!s.checkpointing) return static_cast<uint64_t>(tokens * layer * layers);
  // A layer's input is the residual stream and what is still to be added to it.
  const double input = 2.0 * static_cast<double>(s.hidden * s.bytes);
  return static_cast<uint64_t>(tokens * (layer + input * layers));
}

// A chunk of logits at its worst. CPU: one fp32 matrix, turned into its gradient in place. CUDA:
// logits and their gradient in the compute dtype, log-probabilities and gradient in fp32.
// And the gradient of the hidden states, which is formed with the loss.
uint64_t LogitBytes(const Shape& s) {
  const int64_t rows =
      std::min(s.tokens, std::max<int64_t>(1, kLogitValues / std::max<int64_t>(1, s.vocabulary)));
  const int64_t a_value = s.cuda ? 2 * s.bytes + 8 : 4;
  return static_cast<uint64_t>(rows * s.vocabulary * a_value + 2 * s.tokens * s.hidden * s.bytes);
}

// What lives within one operation: gradients that flow through the MLP (3f + 3d a token), a norm in
// fp32, and a fused matrix dequantized for its product.
uint64_t WorkspaceBytes(const Shape& s) {
  int64_t bytes = s.tokens * (3 * s.intermediate + 3 * s.hidden) * s.bytes;
  if (s.cuda) bytes += 2 * s.tokens * s.hidden * 4;
  if (s.quantized) {
    const int64_t widest = std::max(2 * s.intermediate, s.query + 2 * s.key_value);
    bytes += widest * s.hidden * s.bytes;
  }
  return static_cast<uint64_t>(bytes);
}

uint64_t ExportBytes(const v1::JobSpec& spec, const ModelSummary& model, int64_t trainable) {
  double bytes = 0;
  const double matrices = static_cast<double>(model.linear_parameters + model.embedding_parameters);
  const double others = static_cast<double>(model.other_parameters);
  for (const std::string& format : spec.export_().formats()) {
    if (format == "adapter") bytes += 4.0 * static_cast<double>(trainable);
    if (format != "gguf") continue;
    for (const std::string& type : spec.export_().gguf_types()) {
      // Q8_0 holds 32 values in 34 bytes; GGUF keeps norms and biases in fp32.
      const double a_value = type == "f32" ? 4 : type == "q8_0" ? 34.0 / 32 : 2;
      bytes += matrices * a_value + 4.0 * others;
    }
  }
  // A GGUF is made from the merged model, which is there as long.
  if (NeedsMerging(spec))
    bytes += (matrices + others) * (spec.export_().merged_dtype() == "float32" ? 4 : 2);
  return static_cast<uint64_t>(bytes);
}

// The arena of worker/models/cuda_decoder.cc (Place), which trains bf16 jobs without biases and
// dropout where the device allows it: the same pieces, counted.
bool RunsOnCudaDecoder(const v1::JobSpec& spec, const ModelConfig& config,
                       const DeviceProfile& device) {
  return device.cuda_decoder && spec.bf16().value() && !config.attention_bias && !config.mlp_bias &&
         spec.lora().dropout().value() == 0 && config.head_dim % 16 == 0 &&
         config.head_dim <= 128 && config.hidden_size % 8 == 0 && config.hidden_size <= 16384 &&
         config.intermediate_size % 8 == 0;
}

struct CudaDecoderBytes {
  uint64_t activations = 0, logits = 0, workspace = 0, decoded_weights = 0;
  uint64_t on_host = 0;  // activations that wait there for the backward pass
};

CudaDecoderBytes CountCudaDecoder(const Shape& s, int64_t rows, int64_t head_dim,
                                  const ModelSummary& model,
                                  const std::vector<PlannedAdapter>& adapters) {
  constexpr int64_t kGemmWorkspace = int64_t{32} << 20, kLogits = int64_t{64} << 20;
  const auto up = [](int64_t n, int64_t unit) { return CeilDiv(n, unit) * unit; };
  // Spare columns of the fused linears Q|K|V, out, gate|up, down: the widest of all layers.
  const auto a_layer = std::max<int64_t>(1, static_cast<int64_t>(model.linears.size()) / s.layers);
  std::vector<std::array<int64_t, 4>> ranks(static_cast<size_t>(s.layers));
  for (const PlannedAdapter& adapter : adapters) {
    const int64_t at = adapter.linear - model.linears.data(), within = at % a_layer;
    const size_t kind = within < 3 ? 0 : within == 3 ? 1 : within < 6 ? 2 : 3;
    ranks[static_cast<size_t>(std::min(at / a_layer, s.layers - 1))][kind] += up(adapter.rank, 8);
  }
  std::array<int64_t, 4> spare = {};
  const int64_t n[4] = {s.query + 2 * s.key_value, s.hidden, 2 * s.intermediate, s.hidden};
  const int64_t k[4] = {s.hidden, s.query, s.hidden, s.intermediate};
  int64_t matrices = 0, largest = 0;
  for (const auto& layer : ranks) {
    for (size_t i = 0; i < 4; ++i) {
      spare[i] = std::max(spare[i], layer[i]);
      const int64_t matrix = (n[i] + layer[i]) * up(k[i] + layer[i], 64);
      matrices += matrix;
      largest = std::max(largest, matrix);
    }
  }
  const int64_t t = s.tokens, d = s.hidden;
  const auto stride = [&](int64_t columns, size_t i) { return up(columns + spare[i], 64); };
  const int64_t norm1 = stride(d, 0), qkv = up(n[0], 64), attended = stride(s.query, 1),
                norm2 = stride(d, 2);
  const int64_t gate_up = stride(n[2], 2), act = stride(s.intermediate, 3), d_qkv = stride(n[0], 0);
  // Workspace of attention's backward pass, in groups of documents or heads; with grouped queries
  // it also holds the keys' and values' gradients of every query head.
  const int64_t length = up(t / rows, 128), document = s.heads * length * length * 2;
  const int64_t limit = s.checkpointing ? int64_t{256} << 20 : int64_t{1} << 30;
  const int64_t group = std::clamp<int64_t>(limit / document, 1, rows);
  int64_t attention =
      document <= limit ? group * document
                        : std::max(limit, document / std::max<int64_t>(1, s.key_value / head_dim));
  attention = up(attention + 1, int64_t{64} << 20);
  if (s.query != s.key_value) attention += 2 * group * length * s.query * 2;
  const int64_t logit_stride = up(s.vocabulary, 64),
                logits = std::clamp<int64_t>(kLogits / logit_stride, 1, t) * logit_stride;

  CudaDecoderBytes bytes;
  const int64_t of_layer = t * (2 + s.heads) * 4;  // 1/rms of both norms, log-sum-exp
  int64_t turn_mlp = t * act * 2, turn_attention = t * d_qkv * 2 + attention, values = 0;
  if (s.checkpointing) {
    values = t * (2 * (2 * d + attended) + s.layers * spare[3]);
    bytes.on_host = static_cast<uint64_t>(t * ((s.layers + 1) * d + s.layers * (d + attended)) * 2);
    turn_mlp += t * (norm2 + gate_up) * 2;
    turn_attention += t * (norm1 + qkv) * 2;
  } else {
    values = t * (d + s.layers * (2 * d + attended + norm1 + qkv + norm2 + gate_up + act));
    bytes.decoded_weights = static_cast<uint64_t>(matrices * 2);
  }
  bytes.activations = static_cast<uint64_t>(values * 2 + of_layer * s.layers);
  const int64_t turn = std::max({turn_mlp, turn_attention, logits * 2});
  bytes.logits = static_cast<uint64_t>(logits * 2);
  bytes.workspace = static_cast<uint64_t>(
      turn - logits * 2 + largest * 2 + kGemmWorkspace +
      t * 2 * (std::max(d, s.query) + stride(d, 3) + stride(d, 1)) + t * 4 * (2 + head_dim));
  return bytes;
}

uint64_t DiskBytes(const v1::JobSpec& spec, const ModelSummary& model, int64_t trainable) {
  // Adapter and both moments in fp32. The newest save_total_limit are kept, the best besides, and
  // one is being written.
  const double checkpoints = 12.0 * static_cast<double>(trainable) *
                             static_cast<double>(std::max<int64_t>(1, spec.save_total_limit()) + 2);
  return static_cast<uint64_t>(checkpoints) + ExportBytes(spec, model, trainable);
}

int64_t TotalSteps(const v1::JobSpec& spec, int64_t rows) {
  if (spec.has_max_steps()) return spec.max_steps();
  if (rows <= 0) return 0;
  const int64_t micro_batches =
      CeilDiv(rows, std::max<int64_t>(1, spec.per_device_train_batch_size().value()));
  const int64_t updates =
      CeilDiv(micro_batches, std::max<int64_t>(1, spec.gradient_accumulation_steps().value()));
  return static_cast<int64_t>(std::ceil(spec.num_train_epochs() * static_cast<double>(updates)));
}

// Floating-point operations for one trained token: 2 a weight forward, 2 backward (a frozen weight
// has no gradient of its own), 2 more where the forward pass is done again; 6 an adapter weight.
// Causal attention over documents of `length` tokens: half of 4 q length forward, 2.5 times that
// backward.
double FlopsPerToken(const Shape& s, const ModelSummary& model, int64_t trainable, double length) {
  const double again = s.checkpointing ? 1 : 0;
  const double attention =
      2.0 * static_cast<double>(s.query) * length * static_cast<double>(s.layers);
  return static_cast<double>(model.linear_parameters) * (4 + 2 * again) +
         static_cast<double>(trainable) * (6 + 2 * again) +
         4.0 * static_cast<double>(s.vocabulary * s.hidden) + attention * (3.5 + again);
}

// Kinds that do not train: no steps, and how long they take depends on disks and prompts; only
// memory and disk are said.
v1::Estimate EstimateOtherKind(const v1::JobSpec& spec, const ModelSummary& model,
                               const DeviceProfile& device) {
  v1::Estimate estimate;
  const bool generate = spec.kind() == "generate";
  *estimate.mutable_memory() =
      generate ? GenerateMemory(spec, model, device) : MergeMemory(spec, model, device);
  if (!generate) estimate.mutable_memory()->set_disk_bytes(ExportBytes(spec, model, 0));
  estimate.set_total_parameters(model.parameters);
  estimate.set_device(device.cuda ? device.name : "cpu");
  return estimate;
}

}  // namespace

v1::Estimate EstimateRun(const v1::JobSpec& spec, const ModelSummary& model,
                         const DeviceProfile& device, int64_t train_tokens, int64_t train_rows) {
  if (spec.kind() != "finetune") return EstimateOtherKind(spec, model, device);
  const ModelConfig& config = model.config;
  const int64_t rows = std::max<int64_t>(1, spec.per_device_train_batch_size().value());
  const Shape s = {
      .hidden = config.hidden_size,
      .intermediate = config.intermediate_size,
      .query = config.num_attention_heads * config.head_dim,
      .key_value = config.num_key_value_heads * config.head_dim,
      .heads = config.num_attention_heads,
      .layers = std::max<int64_t>(1, config.num_hidden_layers),
      .vocabulary = config.vocab_size,
      .tokens = rows * spec.max_seq_length(),
      .bytes = spec.bf16().value() ? 2 : 4,
      .cuda = device.cuda,
      .quantized = spec.quantization().load_in_4bit().value(),
      .checkpointing = spec.gradient_checkpointing().value(),
  };
  const std::vector<PlannedAdapter> adapters = AdaptersOrNone(spec.lora(), model);
  int64_t trainable = 0;
  for (const PlannedAdapter& adapter : adapters) trainable += adapter.parameters();

  v1::Estimate estimate;
  auto& bytes = *estimate.mutable_memory()->mutable_device_bytes();
  AddBaseBytes(model, s.bytes, s.quantized, spec.quantization(), &bytes);
  bytes["adapters"] = static_cast<uint64_t>(4 * trainable);
  bytes["gradients"] = static_cast<uint64_t>(4 * trainable);
  bytes["optimizer"] = static_cast<uint64_t>(8 * trainable);
  bytes["context"] = device.cuda ? kCudaContextBytes : kCpuProcessBytes;
  uint64_t spare_weights = 0, on_host = 0;
  if (RunsOnCudaDecoder(spec, config, device)) {
    const CudaDecoderBytes counted = CountCudaDecoder(s, rows, config.head_dim, model, adapters);
    bytes["activations"] = counted.activations;
    bytes["logits"] = counted.logits;
    bytes["workspace"] = counted.workspace;
    spare_weights = counted.decoded_weights;
    on_host = counted.on_host;
  } else {
    bytes["activations"] = ActivationBytes(s, spec, adapters);
    bytes["logits"] = LogitBytes(s);
    bytes["workspace"] = WorkspaceBytes(s);
  }
  uint64_t peak = 0;
  for (const auto& [category, size] : bytes) peak += size;
  // Taken only where it leaves an eighth of the device free; a job that has less runs all the same.
  if (spare_weights > 0 && peak + spare_weights <= device.free_bytes / 8 * 7) {
    bytes["decoded_weights"] = spare_weights;
    peak += spare_weights;
  }
  estimate.mutable_memory()->set_device_peak_bytes(peak);
  // Beside a GPU the host holds the libraries and the largest tensor on its way to the device.
  const uint64_t largest_tensor = static_cast<uint64_t>(s.vocabulary * s.hidden * 4);
  estimate.mutable_memory()->set_host_peak_bytes(
      device.cuda ? kCpuProcessBytes + largest_tensor + on_host : peak);
  estimate.mutable_memory()->set_disk_bytes(DiskBytes(spec, model, trainable));

  const int64_t steps = TotalSteps(spec, train_rows);
  estimate.set_total_steps(steps);
  estimate.set_train_tokens(train_tokens);
  const int64_t micro_batches = std::max<int64_t>(1, spec.gradient_accumulation_steps().value());
  double tokens = static_cast<double>(steps * micro_batches * s.tokens);
  double length = static_cast<double>(spec.max_seq_length());
  if (train_tokens > 0 && train_rows > 0) {
    length = static_cast<double>(train_tokens) / static_cast<double>(train_rows);
    const double full_rows = static_cast<double>(steps * micro_batches * rows);
    tokens = spec.has_max_steps() ? full_rows * length
                                  : spec.num_train_epochs() * static_cast<double>(train_tokens);
  }
  if (device.flops > 0) {
    estimate.set_seconds(tokens * FlopsPerToken(s, model, trainable, length) / device.flops);
  }
  estimate.set_total_parameters(model.parameters);
  estimate.set_trainable_parameters(trainable);
  // 16-bit weights and gradients, fp32 master copy and both moments.
  estimate.set_full_finetuning_bytes(static_cast<uint64_t>(model.parameters) * 16);
  estimate.set_device(device.cuda ? device.name : "cpu");
  return estimate;
}

}  // namespace finetuned
