#include "worker/monitor/memory.h"

#include <gtest/gtest.h>

#include <vector>

namespace finetuned {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(MemoryTest, FollowsWhatTheProcessTouches) {
  const uint64_t before = HostRssBytes();
  ASSERT_GT(before, kMiB);
  uint64_t with = 0;
  {
    std::vector<char> block(256 * kMiB, 1);
    with = HostRssBytes();
    EXPECT_EQ(block[kMiB], 1);
  }
  EXPECT_GE(with, before + 250 * kMiB);
  EXPECT_LE(with, before + 300 * kMiB);
  // The peak stays when the memory is gone.
  EXPECT_LT(HostRssBytes(), with - 200 * kMiB);
  EXPECT_GE(HostPeakRssBytes() + kMiB, with);  // the kernel sums its counters at different moments
}

TEST(MemoryTest, OnTheCpuTheDeviceIsTheHost) {
  const DeviceMemory memory = ReadDeviceMemory(c10::kCPU);
  EXPECT_GT(memory.allocated, kMiB);
  EXPECT_EQ(memory.reserved, memory.allocated);
  EXPECT_GE(memory.peak_allocated, memory.allocated);
  EXPECT_GT(memory.total, memory.free);
  EXPECT_GT(memory.total, memory.allocated);
  const v1::MemorySnapshot snapshot = TakeMemorySnapshot("baseline", c10::kCPU);
  EXPECT_EQ(snapshot.point(), "baseline");
  EXPECT_GT(snapshot.host_rss_bytes(), kMiB);
  EXPECT_GT(snapshot.device_free_bytes(), 0u);
}

}  // namespace
}  // namespace finetuned
