// What tests on a GPU ask it.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "kernels/attention/attention_cudnn.h"

// For tests of what stands on cuDNN's attention. The product takes that path on compute capability 9 and 10 alone, so on an
// older GPU there is nothing to test; where it has to be there, its absence (libcudnn not found) is a failure.
#define REQUIRE_CUDNN_ATTENTION()                                                                         \
  do {                                                                                                    \
    int major = 0;                                                                                        \
    ASSERT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);         \
    if (major != 9 && major != 10)                                                                        \
      GTEST_SKIP() << "cuDNN attention runs on compute capability 9 and 10; this GPU has " << major;      \
    ASSERT_TRUE(finetuned::kernels::CudnnAttention::Available()) << "libcudnn.so.9 cannot be loaded";     \
  } while (false)
