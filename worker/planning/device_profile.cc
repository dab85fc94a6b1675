#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#ifdef FINETUNED_CUDA
#include "kernels/attention/attention_cudnn.h"
#endif
#include "worker/planning/estimate.h"

namespace finetuned {
namespace {

// A first model of throughput, until finished jobs correct it: what training sustains of the peak
// that the hardware's tables name.
constexpr double kSustainedShare = 0.4;
// fp32 a core sustains in matrix products with AVX2.
constexpr double kCpuFlopsPerCore = 3e10;

uint64_t MemAvailableBytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key, unit;
  uint64_t kib = 0;
  while (meminfo >> key >> kib && std::getline(meminfo, unit)) {
    if (key == "MemAvailable:") return kib << 10;
  }
  return 0;
}

std::string CpuName() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  std::string line;
  while (std::getline(cpuinfo, line)) {
    const size_t colon = line.find(": ");
    if (line.rfind("model name", 0) == 0 && colon != std::string::npos)
      return line.substr(colon + 2);
  }
  return "cpu";
}

DeviceProfile ProbeCpu() {
  DeviceProfile profile;
  profile.id = "cpu";
  profile.name = CpuName();
  profile.free_bytes = MemAvailableBytes();
  profile.flops = kCpuFlopsPerCore * std::max(1U, std::thread::hardware_concurrency());
  return profile;
}

// Operations of one multiprocessor in one clock: 16-bit tensor cores from capability 8.0 on (CUDA
// programming guide, "Arithmetic instructions"), fp32 units before.
double FlopsPerClock(int major, int minor) {
  if (major >= 10) return 8192;
  if (major == 9) return 4096;
  if (major == 8) return minor == 0 ? 2048 : 1024;
  return 128;
}

DeviceProfile ProbeCuda(const std::string& id) {
  DeviceProfile profile;
  profile.id = id;
  profile.cuda = true;
  const size_t digits = id.find_first_of("0123456789");
  const int index = digits == std::string::npos ? 0 : std::atoi(id.c_str() + digits);
  cudaDeviceProp properties;
  size_t free_bytes = 0, total_bytes = 0;
  cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error == cudaSuccess) error = cudaSetDevice(index);
  if (error == cudaSuccess) error = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (error != cudaSuccess) {
    profile.name = id + " (" + cudaGetErrorString(error) + ")";
    return profile;
  }
  int clock_khz = 0;
  if (cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, index) != cudaSuccess) clock_khz = 0;
  profile.name = properties.name;
  profile.bf16 = properties.major >= 8;
#ifdef FINETUNED_CUDA
  profile.cuda_decoder = kernels::CudnnAttention::Available();
#endif
  profile.free_bytes = free_bytes;
  profile.flops = kSustainedShare * FlopsPerClock(properties.major, properties.minor) *
                  properties.multiProcessorCount * clock_khz * 1e3;
  return profile;
}

}  // namespace

DeviceProfile ProbeDevice(const std::string& device) {
  const bool gpu = device.rfind("cuda", 0) == 0 || device.rfind("gpu", 0) == 0;
  return gpu ? ProbeCuda(device) : ProbeCpu();
}

}  // namespace finetuned
