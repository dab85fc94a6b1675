#include "worker/export/gguf_encoding.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace finetuned {
namespace {

static_assert(std::endian::native == std::endian::little,
              "GGUF is written in host byte order, which must be little-endian");

struct TypeFacts {
  const char* name;
  uint32_t ggml_id;
  int64_t block_elements, block_bytes;
};
// In the order of GgufType.
constexpr TypeFacts kTypes[] = {
    {"F32", 0, 1, 4}, {"F16", 1, 1, 2}, {"BF16", 30, 1, 2}, {"Q8_0", 8, 32, 34}};

const TypeFacts& FactsOf(GgufType type) { return kTypes[static_cast<int>(type)]; }

uint16_t ToHalf(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000)
    return static_cast<uint16_t>(sign | 0x7e00 |
                                 (bits >> 13 & 0x3ff));  // a NaN keeps its payload, quiet
  if (bits >= 0x477ff000)
    return static_cast<uint16_t>(sign | 0x7c00);  // 65520 and above round to infinity
  if (bits < 0x38800000) {
    // Subnormal: beside 0.5 a float's last place is 2^-24, that of such a half; the addition
    // rounds.
    const uint32_t units =
        std::bit_cast<uint32_t>(std::bit_cast<float>(bits) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    return static_cast<uint16_t>(sign | units);
  }
  bits += 0xfff + (bits >> 13 & 1);  // a carry may reach the exponent, as it should
  return static_cast<uint16_t>(sign | (bits - 0x38000000) >> 13);
}

float FromHalf(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;
  uint32_t bits;
  if (exponent == 0) {
    bits = std::bit_cast<uint32_t>(static_cast<float>(mantissa) * 0x1p-24f);
  } else {
    bits = (exponent == 31 ? 0x7f800000 : (exponent + 112) << 23) | mantissa << 13;
  }
  return std::bit_cast<float>(bits | sign);
}

uint16_t ToBfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 64);  // quiet NaN
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float FromBfloat16(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

constexpr int kBlock = 32;
struct Q8Block {
  uint16_t d;
  int8_t q[kBlock];
};
static_assert(sizeof(Q8Block) == 34);

float LargestOf(const float* values, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(values[i]));
  return largest;
}

Q8Block EncodeBlock(const float* values) {
  const float d = LargestOf(values, kBlock) / 127;
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  Q8Block block;
  block.d = ToHalf(d);
  for (int i = 0; i < kBlock; ++i) {
    const float scaled = std::roundf(values[i] * inverse);
    // Without infinities |scaled| ≤ 127 but for the smallest d, whose inverse overflows.
    block.q[i] = static_cast<int8_t>(scaled >= -127  ? std::min(scaled, 127.0f)
                                     : scaled < -127 ? -127.0f
                                                     : 0.0f);
  }
  return block;
}

}  // namespace

absl::StatusOr<GgufType> ParseGgufType(std::string_view name) {
  for (int i = 0; i < 4; ++i) {
    const std::string_view known = kTypes[i].name;
    const auto same = [](char a, char b) {
      return (a >= 'a' && a <= 'z' ? a - 'a' + 'A' : a) == b;
    };
    if (std::equal(name.begin(), name.end(), known.begin(), known.end(), same))
      return static_cast<GgufType>(i);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "GGUF type '", std::string(name), "' is not written here; allowed: f32, f16, bf16, q8_0"));
}

const char* GgufTypeName(GgufType type) { return FactsOf(type).name; }

uint32_t GgmlTypeId(GgufType type) { return FactsOf(type).ggml_id; }

std::optional<GgufType> GgufTypeOfId(uint32_t ggml_type) {
  for (int i = 0; i < 4; ++i) {
    if (kTypes[i].ggml_id == ggml_type) return static_cast<GgufType>(i);
  }
  return std::nullopt;
}

int64_t GgufBlockElements(GgufType type) { return FactsOf(type).block_elements; }

int64_t GgufBytes(GgufType type, int64_t n) {
  return n / FactsOf(type).block_elements * FactsOf(type).block_bytes;
}

void EncodeGguf(GgufType type, const float* values, int64_t n, char* out) {
  switch (type) {
    case GgufType::kF32:
      memcpy(out, values, static_cast<size_t>(n) * sizeof(float));
      return;
    case GgufType::kF16:
    case GgufType::kBf16:
      for (int64_t i = 0; i < n; ++i) {
        const uint16_t bits = type == GgufType::kF16 ? ToHalf(values[i]) : ToBfloat16(values[i]);
        memcpy(out + 2 * i, &bits, 2);
      }
      return;
    case GgufType::kQ8_0:
      for (int64_t i = 0; i < n; i += kBlock) {
        const Q8Block block = EncodeBlock(values + i);
        memcpy(out, &block, sizeof(block));
        out += sizeof(block);
      }
      return;
  }
}

void DecodeGguf(GgufType type, const char* encoded, int64_t n, float* values) {
  switch (type) {
    case GgufType::kF32:
      memcpy(values, encoded, static_cast<size_t>(n) * sizeof(float));
      return;
    case GgufType::kF16:
    case GgufType::kBf16:
      for (int64_t i = 0; i < n; ++i) {
        uint16_t bits;
        memcpy(&bits, encoded + 2 * i, 2);
        values[i] = type == GgufType::kF16 ? FromHalf(bits) : FromBfloat16(bits);
      }
      return;
    case GgufType::kQ8_0:
      for (int64_t i = 0; i < n; i += kBlock, encoded += sizeof(Q8Block)) {
        Q8Block block;
        memcpy(&block, encoded, sizeof(block));
        const float d = FromHalf(block.d);
        for (int j = 0; j < kBlock; ++j) values[i + j] = d * block.q[j];
      }
      return;
  }
}

float GgufLargest(GgufType type) {
  switch (type) {
    case GgufType::kF32:
      return 0x1.fffffep127f;
    case GgufType::kF16:
      return std::nextafterf(65520.0f, 0.0f);
    case GgufType::kBf16:
      return std::nextafterf(0x1.ffp127f, 0.0f);
    case GgufType::kQ8_0:
      return std::nextafterf(127 * 65520.0f, 0.0f);
  }
  return 0;
}

int64_t FirstBeyondRounding(GgufType type, const float* source, const float* decoded, int64_t n) {
  const int64_t step = GgufBlockElements(type);
  for (int64_t begin = 0; begin < n; begin += step) {
    double block_bound = 0;
    if (type == GgufType::kQ8_0) {
      // |x − d·q| with q within 0.5 of x / d, |q| ≤ 127, and d rounded by 2^-11 of itself, or by
      // 2^-25 where it is subnormal.
      const double d = static_cast<double>(LargestOf(source + begin, step)) / 127;
      block_bound = 0.5 * d + 127 * std::max(d * 0x1p-11, 0x1p-25) + 1e-5 * d;
    }
    for (int64_t i = begin; i < begin + step; ++i) {
      const double x = source[i];
      const double bound = type == GgufType::kF16    ? std::max(std::fabs(x) * 0x1p-11, 0x1p-25)
                           : type == GgufType::kBf16 ? std::max(std::fabs(x) * 0x1p-8, 0x1p-134)
                                                     : block_bound;
      if (!(std::fabs(decoded[i] - x) <= bound)) return i;
    }
  }
  return -1;
}

}  // namespace finetuned
