#include "worker/monitor/memory.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <fstream>
#include <string>

namespace finetuned {
namespace {

// Value in bytes of a "Name:   123 kB" line; 0 when absent.
uint64_t ProcValue(const char* path, const char* name) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (line.compare(0, std::strlen(name), name) == 0) return std::stoull(line.substr(std::strlen(name))) * 1024;
  }
  return 0;
}

}  // namespace

uint64_t HostRssBytes() { return ProcValue("/proc/self/status", "VmRSS:"); }
uint64_t HostPeakRssBytes() { return ProcValue("/proc/self/status", "VmHWM:"); }

DeviceMemory ReadDeviceMemory(c10::Device device) {
  DeviceMemory memory;
  if (device.is_cuda()) {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
    constexpr size_t kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    memory.allocated = static_cast<uint64_t>(stats.allocated_bytes[kAll].current);
    memory.peak_allocated = static_cast<uint64_t>(stats.allocated_bytes[kAll].peak);
    memory.reserved = static_cast<uint64_t>(stats.reserved_bytes[kAll].current);
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) == cudaSuccess) {
      memory.free = free;
      memory.total = total;
    }
    return memory;
  }
  memory.allocated = memory.reserved = HostRssBytes();
  memory.peak_allocated = HostPeakRssBytes();
  memory.free = ProcValue("/proc/meminfo", "MemAvailable:");
  memory.total = ProcValue("/proc/meminfo", "MemTotal:");
  return memory;
}

v1::MemorySnapshot TakeMemorySnapshot(const char* point, c10::Device device) {
  const DeviceMemory memory = ReadDeviceMemory(device);
  v1::MemorySnapshot snapshot;
  snapshot.set_point(point);
  snapshot.set_device_allocated_bytes(memory.allocated);
  snapshot.set_device_reserved_bytes(memory.reserved);
  snapshot.set_device_free_bytes(memory.free);
  snapshot.set_host_rss_bytes(HostRssBytes());
  return snapshot;
}

}  // namespace finetuned
