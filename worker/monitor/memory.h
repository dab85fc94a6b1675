// What memory this process and its device use, for metrics, snapshots and the comparison with the estimate.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>

#include "finetuned/v1/types.pb.h"

namespace finetuned {

// Resident set of this process now, and its highest value so far; bytes, from /proc/self/status.
uint64_t HostRssBytes();
uint64_t HostPeakRssBytes();

struct DeviceMemory {
  uint64_t allocated = 0, reserved = 0, peak_allocated = 0, free = 0, total = 0;
};
// PyTorch's caching allocator on a CUDA device; on the CPU allocated and peak are the resident set, free is
// MemAvailable.
DeviceMemory ReadDeviceMemory(c10::Device device);

// point: "baseline", "loaded", "injected", "first_step", "training_peak", "evaluation".
v1::MemorySnapshot TakeMemorySnapshot(const char* point, c10::Device device);

}  // namespace finetuned
