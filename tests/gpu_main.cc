// main() of tests that run on a GPU. Where there is none they are skipped, with the reason, and do not count as passed;
// a GPU that is there but does not answer is a failure.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdio>

int main(int argc, char** argv) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver) {
    std::printf("skipped: %s runs kernels on an NVIDIA GPU: %s\n", argv[0], cudaGetErrorString(error));
    return 77;
  }
  if (error != cudaSuccess) {
    std::printf("the GPU does not answer: %s\n", cudaGetErrorString(error));
    return 1;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
