// The tables of nf4.h in constant memory, for the kernels of one source file.
#pragma once

#include <mutex>

#include "kernels/base/cuda_util.cuh"
#include "kernels/nf4/nf4.h"

namespace finetuned::kernels {
namespace {

__constant__ float c_values[2][16];  // by Code4
__constant__ float c_map[256];

// Constant memory belongs to a device: filled once for each.
void EnsureTables() {
  static std::mutex mutex;
  static bool filled[64] = {};
  int device = 0;
  CheckCuda(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard<std::mutex> lock(mutex);
  if (filled[device]) return;
  CheckCuda(cudaMemcpyToSymbol(c_values, kNf4Values, 64, 0), "4-bit tables");
  CheckCuda(cudaMemcpyToSymbol(c_values, kFp4Values, 64, 64), "4-bit tables");
  CheckCuda(cudaMemcpyToSymbol(c_map, DynamicMap(), 1024), "4-bit tables");
  filled[device] = true;
}

}  // namespace
}  // namespace finetuned::kernels
