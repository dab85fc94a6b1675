#include "worker/models/tensor_checksum.h"

#include <atomic>
#include <cstring>

#include "kernels/base/parallel.h"

namespace finetuned {
namespace {

constexpr int64_t kPiece = 1 << 20;

// Finaliser of MurmurHash3: every input bit reaches every output bit.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

uint64_t HashBytes(const char* data, int64_t size, uint64_t seed) {
  uint64_t lanes[4] = {seed, ~seed, seed * 3, seed ^ 0x9e3779b97f4a7c15ULL};
  int64_t i = 0;
  for (; i + 32 <= size; i += 32) {
    for (int lane = 0; lane < 4; ++lane) {
      uint64_t word;
      memcpy(&word, data + i + 8 * lane, 8);
      const uint64_t x = (lanes[lane] ^ word) * 0x9e3779b97f4a7c15ULL;
      lanes[lane] = x << 31 | x >> 33;
    }
  }
  for (; i < size; ++i)
    lanes[0] = (lanes[0] ^ static_cast<unsigned char>(data[i])) * 0x100000001b3ULL;
  return Mix(lanes[0] + Mix(lanes[1] + Mix(lanes[2] + Mix(lanes[3]))));
}

}  // namespace

uint64_t TensorChecksum(const std::string& name, const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
  const auto size = static_cast<int64_t>(host.nbytes());
  const char* data = static_cast<const char*>(host.const_data_ptr());
  const uint64_t seed =
      HashBytes(name.data(), static_cast<int64_t>(name.size()), static_cast<uint64_t>(size));
  // Pieces are hashed with their position and added, so that any number of threads gives the same
  // sum.
  std::atomic<uint64_t> sum{seed};
  kernels::ParallelTasks((size + kPiece - 1) / kPiece, [&](int64_t piece) {
    const int64_t begin = piece * kPiece;
    sum += HashBytes(data + begin, std::min(kPiece, size - begin),
                     seed + static_cast<uint64_t>(piece));
  });
  return Mix(sum);
}

}  // namespace finetuned
