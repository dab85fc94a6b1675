// What a job will need, before it runs: memory by category by exact arithmetic from config and spec, time from a first
// throughput model, and the values that `auto` stands for. Admission, EstimateJob and the worker use this one number.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "finetuned/v1/service.pb.h"
#include "finetuned/v1/worker.pb.h"
#include "worker/models/model_summary.h"

namespace finetuned {

// The device a job is planned for.
struct DeviceProfile {
  std::string id;    // "cpu", "cuda:0"
  std::string name;
  bool cuda = false;
  bool bf16 = false;               // compute capability ≥ 8.0
  bool cuda_decoder = false;       // worker/models/cuda_decoder.h runs there
  uint64_t free_bytes = 0;         // device memory, or MemAvailable on the CPU
  double flops = 0;                // sustained in the compute dtype, for the time model
};
// Asks the machine: cores and memory of the CPU, or the properties of the GPU.
DeviceProfile ProbeDevice(const std::string& device);

struct ResolvedAuto {
  v1::JobSpec spec;                  // no `auto` left but eval_steps and save_steps (they depend on the data)
  std::vector<std::string> reasons;  // "per_device_train_batch_size: 4 (auto: largest power of two …)"
};
// Decides compute dtype, 4-bit, batch size, accumulation, gradient checkpointing, r/alpha/dropout `auto`.
ResolvedAuto ResolveAuto(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device);

// `spec` from ResolveAuto. train_tokens and train_rows of one epoch; 0 when the data was not looked at (then steps and time
// come from max_steps, or are 0).
v1::Estimate EstimateRun(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device,
                         int64_t train_tokens, int64_t train_rows);

// Checks that need the model: sequence against max_position_embeddings (E), r at or above a module's smaller dimension
// (W), targets that match nothing (E), trainable share (W), memory (E), disk (E), dtype against hardware (E).
std::vector<v1::Problem> CheckAgainstModel(const v1::JobSpec& spec, const ModelSummary& model, const DeviceProfile& device);

}  // namespace finetuned
