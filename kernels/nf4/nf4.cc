#include "kernels/nf4/nf4.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/base/parallel.h"

namespace finetuned::kernels {

// Quantiles of a normal distribution, normalised to [−1, 1] (Dettmers et al., "QLoRA", 2023,
// appendix E).
const float kNf4Values[16] = {-1.0f,
                              -0.6961928009986877f,
                              -0.5250730514526367f,
                              -0.39491748809814453f,
                              -0.28444138169288635f,
                              -0.18477343022823334f,
                              -0.09105003625154495f,
                              0.0f,
                              0.07958029955625534f,
                              0.16093020141124725f,
                              0.24611230194568634f,
                              0.33791524171829224f,
                              0.44070982933044434f,
                              0.5626170039176941f,
                              0.7229568362236023f,
                              1.0f};
// Sign, two exponent bits, one mantissa bit; {0, 0.0625, 8, 12, 4, 6, 2, 3} / 12.
const float kFp4Values[16] = {
    0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
    0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f};
const uint8_t kFp4Order[16] = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

// Computed in float as bitsandbytes does, (a + b) / 2, and written down so that all of them are
// constants.
const float kNf4Midpoints[15] = {-0x1.b239bp-1f,  -0x1.38a4ep-1f,  -0x1.d7090p-2f,  -0x1.5bd4ecp-2f,
                                 -0x1.e079d8p-3f, -0x1.1a7178p-3f, -0x1.74f0e2p-5f, 0x1.45f5fep-5f,
                                 0x1.ec90c4p-4f,  0x1.a0cfcp-3f,   0x1.2b05a8p-2f,  0x1.8ea7f2p-2f,
                                 0x1.00da08p-1f,  0x1.491b5ep-1f,  0x1.b913b4p-1f};
const float kFp4Midpoints[15] = {-0x1.aaaaacp-1f, -0x1.2aaaacp-1f, -0x1.aaaaacp-2f, -0x1.2aaaacp-2f,
                                 -0x1.aaaaacp-3f, -0x1.6p-4f,      -0x1.555556p-9f, 0.0f,
                                 0x1.555556p-9f,  0x1.6p-4f,       0x1.aaaaacp-3f,  0x1.2aaaacp-2f,
                                 0x1.aaaaacp-2f,  0x1.2aaaacp-1f,  0x1.aaaaacp-1f};

namespace {

uint8_t CodeOf(float x, const float* midpoints, const uint8_t* order) {
  int index = 0;
  for (int i = 0; i < 15; ++i) index += midpoints[i] < x;
  // Midpoints never exceed a NaN; bitsandbytes sorts it last.
  if (std::isnan(x)) index = 15;
  return order != nullptr ? order[index] : static_cast<uint8_t>(index);
}

// As torch.linspace(0.1, 1, steps): from the nearer end, multiplied and added with one rounding.
float Linspace(int i, int steps) {
  const float start = 0.1f, end = 1.0f, step = (end - start) / static_cast<float>(steps - 1);
  return i < steps / 2 ? std::fma(step, static_cast<float>(i), start)
                       : std::fma(-step, static_cast<float>(steps - 1 - i), end);
}

std::array<float, 256> MakeDynamicMap() {
  std::array<float, 256> map{};
  size_t count = 0;
  for (int exponent = 0; exponent < 7; ++exponent) {
    const int items = (1 << exponent) + 1;
    const float power = static_cast<float>(std::pow(10.0, exponent - 6));
    for (int i = 0; i + 1 < items; ++i) {
      const float mean = (Linspace(i, items) + Linspace(i + 1, items)) / 2.0f;
      map[count++] = power * mean;
      map[count++] = -power * mean;
    }
  }
  map[count++] = 0;
  map[count++] = 1;
  std::sort(map.begin(), map.end());
  return map;
}

// bitsandbytes looks codes up on a grid over [−1, 1] on the CPU: the code nearest to the middle of
// x's cell, which near a midpoint is not always the code nearest to x. The same grid gives the same
// codes.
constexpr int kGridCells = 65536;
std::vector<uint8_t> MakeGrid() {
  const float* map = DynamicMap();
  std::vector<uint8_t> grid(kGridCells);
  int code = 0;
  for (int cell = 0; cell < kGridCells; ++cell) {
    const double middle = cell * 2.0 / (kGridCells - 1) - 1;
    while (code < 255 && (double{map[code]} + map[code + 1]) / 2 < middle) ++code;
    grid[static_cast<size_t>(cell)] = static_cast<uint8_t>(code);
  }
  return grid;
}

}  // namespace

const float* DynamicMap() {
  static const std::array<float, 256> map = MakeDynamicMap();
  return map.data();
}

void Quantize4Bit(const float* x, int64_t n, int64_t blocksize, Code4 code, uint8_t* packed,
                  float* absmax) {
  const float* midpoints = code == Code4::kNf4 ? kNf4Midpoints : kFp4Midpoints;
  const uint8_t* order = code == Code4::kNf4 ? nullptr : kFp4Order;
  ParallelFor((n + blocksize - 1) / blocksize, 64, [=](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * blocksize, end = std::min(n, begin + blocksize);
      float largest = 0;
      for (int64_t i = begin; i < end; ++i) {
        largest = std::isnan(x[i]) ? x[i] : std::max(largest, std::fabs(x[i]));
        if (std::isnan(largest)) break;
      }
      const bool whole = end - begin == blocksize;
      const float divisor = largest < 1e-38f ? 1e-38f : largest, reciprocal = 1.0f / divisor;
      absmax[block] = whole ? largest : divisor;
      const auto scaled = [&](int64_t i) {
        const float value = whole ? x[i] * reciprocal : x[i] / divisor;
        return value < -1.0f ? -1.0f : value > 1.0f ? 1.0f : value;
      };
      for (int64_t i = begin; i < end; i += 2) {
        const uint8_t high = CodeOf(scaled(i), midpoints, order);
        const uint8_t low = CodeOf(i + 1 < end ? scaled(i + 1) : 0.0f, midpoints, order);
        packed[i / 2] = static_cast<uint8_t>(high << 4 | low);
      }
    }
  });
}

void Dequantize4Bit(const uint8_t* packed, const float* absmax, int64_t begin, int64_t count,
                    int64_t blocksize, Code4 code, float* out) {
  const float* values = code == Code4::kNf4 ? kNf4Values : kFp4Values;
  for (int64_t i = 0; i < count;) {
    const int64_t at = begin + i, block = at / blocksize;
    const int64_t stop = std::min(count, (block + 1) * blocksize - begin);
    const float scale = absmax[block];
    for (; i < stop; i += 2) {
      const uint8_t byte = packed[(begin + i) / 2];
      out[i] = values[byte >> 4] * scale;
      if (i + 1 < stop) out[i + 1] = values[byte & 15] * scale;
    }
  }
}

void QuantizeScales(const float* shifted, int64_t blocks, uint8_t* codes, float* nested_absmax) {
  static const std::vector<uint8_t> grid = MakeGrid();
  for (int64_t begin = 0; begin < blocks; begin += kScaleBlock) {
    const int64_t end = std::min(blocks, begin + kScaleBlock);
    float largest = 0;
    for (int64_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(shifted[i]));
    nested_absmax[begin / kScaleBlock] = largest;
    if (largest == 0.0f) {
      std::fill(codes + begin, codes + end, uint8_t{0});
      continue;
    }
    const float reciprocal = 1.0f / largest;
    for (int64_t i = begin; i < end; ++i) {
      const float x = std::clamp(shifted[i] * reciprocal, -1.0f, 1.0f);
      const float at = std::fma((x + 1.0f) * 0.5f, static_cast<float>(kGridCells - 1), 0.5f);
      codes[i] = grid[static_cast<size_t>(at)];
    }
  }
}

void DequantizeScales(const uint8_t* codes, const float* nested_absmax, float offset,
                      int64_t blocks, float* absmax) {
  const float* map = DynamicMap();
  for (int64_t i = 0; i < blocks; ++i) {
    const float scaled = map[codes[i]] * nested_absmax[i / kScaleBlock];
    absmax[i] = scaled + offset;
  }
}

}  // namespace finetuned::kernels
