#include "worker/export/gguf_encoding.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace finetuned {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

uint16_t Bits16(GgufType type, float value) {
  uint16_t bits;
  EncodeGguf(type, &value, 1, reinterpret_cast<char*>(&bits));
  return bits;
}
float Value16(GgufType type, uint16_t bits) {
  float value;
  DecodeGguf(type, reinterpret_cast<const char*>(&bits), 1, &value);
  return value;
}

TEST(GgufEncodingTest, ParsesNamesInAnyCaseAndListsThem) {
  EXPECT_EQ(*ParseGgufType("q8_0"), GgufType::kQ8_0);
  EXPECT_EQ(*ParseGgufType("Q8_0"), GgufType::kQ8_0);
  EXPECT_EQ(*ParseGgufType("bF16"), GgufType::kBf16);
  EXPECT_EQ(*ParseGgufType("F32"), GgufType::kF32);
  for (const char* wrong : {"", "q8", "q8_00", "q4_k_m", "f16 "}) {
    const auto parsed = ParseGgufType(wrong);
    ASSERT_FALSE(parsed.ok()) << wrong;
    EXPECT_NE(parsed.status().message().find("f32, f16, bf16, q8_0"), absl::string_view::npos);
  }
}

TEST(GgufEncodingTest, EveryHalfAndBfloat16SurvivesTheRoundTrip) {
  for (const GgufType type : {GgufType::kF16, GgufType::kBf16}) {
    for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
      const float value = Value16(type, static_cast<uint16_t>(bits));
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(Value16(type, Bits16(type, value)))) << bits;
      } else {
        ASSERT_EQ(Bits16(type, value), bits);
      }
    }
  }
}

TEST(GgufEncodingTest, HalfRoundsToNearestTiesToEven) {
  const auto half = [](float value) { return Bits16(GgufType::kF16, value); };
  EXPECT_EQ(half(1.0f), 0x3c00);
  EXPECT_EQ(half(1.0f + 0x1p-11f), 0x3c00);             // tie, to even
  EXPECT_EQ(half(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01);  // above the tie
  EXPECT_EQ(half(1.0f + 3 * 0x1p-11f), 0x3c02);         // tie, to even upwards
  EXPECT_EQ(half(65504.0f), 0x7bff);
  EXPECT_EQ(half(std::nextafterf(65520.0f, 0)), 0x7bff);
  EXPECT_EQ(half(65520.0f), 0x7c00);
  EXPECT_EQ(half(-1e30f), 0xfc00);
  EXPECT_EQ(half(-kInf), 0xfc00);
  EXPECT_EQ(half(-0.0f), 0x8000);
  EXPECT_EQ(half(0x1p-24f), 0x0001);  // the smallest subnormal
  EXPECT_EQ(half(0x1p-25f), 0x0000);  // tie, to even: zero
  EXPECT_EQ(half(std::nextafterf(0x1p-25f, 1)), 0x0001);
  EXPECT_EQ(half(3 * 0x1p-25f), 0x0002);
  EXPECT_EQ(half(std::nextafterf(0x1p-14f, 0)), 0x0400);  // rounds up into the normal range
  EXPECT_EQ(half(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(half(std::nanf("")) & 0x7e00, 0x7e00);
}

TEST(GgufEncodingTest, HalfIsTheNearestOfAllHalves) {
  const unsigned seed = 20240611;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 200000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (!(std::fabs(value) < 65504)) continue;
    const uint16_t bits = Bits16(GgufType::kF16, value);
    const double error = std::fabs(static_cast<double>(Value16(GgufType::kF16, bits)) - value);
    for (const int step : {-1, 1}) {
      const auto other = static_cast<uint16_t>(bits + step);
      if ((other & 0x7fff) > 0x7bff) continue;
      const double distance =
          std::fabs(static_cast<double>(Value16(GgufType::kF16, other)) - value);
      ASSERT_TRUE(error < distance || (error == distance && bits % 2 == 0)) << value;
    }
  }
}

TEST(GgufEncodingTest, Bfloat16RoundsToNearestTiesToEvenAndKeepsNan) {
  const auto round = [](uint32_t bits) {
    return Bits16(GgufType::kBf16, std::bit_cast<float>(bits));
  };
  EXPECT_EQ(round(0x3f808000), 0x3f80);
  EXPECT_EQ(round(0x3f808001), 0x3f81);
  EXPECT_EQ(round(0x3f818000), 0x3f82);
  EXPECT_EQ(round(0x00000001), 0x0000);
  EXPECT_EQ(round(0x00018000), 0x0002);  // subnormals are kept
  EXPECT_EQ(round(0x7f7fffff), 0x7f80);
  EXPECT_EQ(round(0x7f800000), 0x7f80);
  EXPECT_EQ(round(0x7f800001), 0x7fc0);  // a NaN whose high bits are those of infinity
  EXPECT_EQ(round(0xff800001), 0xffc0);
}

struct Block {
  uint16_t d;
  int8_t q[32];
};
Block Q8(const std::vector<float>& values) {
  Block block;
  EncodeGguf(GgufType::kQ8_0, values.data(), 32, reinterpret_cast<char*>(&block));
  return block;
}

TEST(GgufEncodingTest, Q8BlockByHand) {
  std::vector<float> values(32, 0.0f);
  values[0] = 127;  // d = 1
  values[1] = 0.5f;
  values[2] = -0.5f;
  values[3] = 1.49f;
  values[4] = -127;
  const Block block = Q8(values);
  EXPECT_EQ(block.d, 0x3c00);
  EXPECT_EQ(block.q[0], 127);
  EXPECT_EQ(block.q[1], 1);  // half away from zero
  EXPECT_EQ(block.q[2], -1);
  EXPECT_EQ(block.q[3], 1);
  EXPECT_EQ(block.q[4], -127);
  EXPECT_EQ(block.q[31], 0);
}

TEST(GgufEncodingTest, Q8BlockOfZerosAndOfTinyNumbers) {
  const Block zero = Q8(std::vector<float>(32, 0.0f));
  EXPECT_EQ(zero.d, 0);
  for (const int8_t q : zero.q) EXPECT_EQ(q, 0);
  // The scale underflows in fp16: the block reads as zero, which its rounding explains.
  for (const float tiny : {1e-6f, 1e-30f, std::numeric_limits<float>::denorm_min()}) {
    const std::vector<float> source(32, tiny);
    const Block block = Q8(source);
    std::vector<float> decoded(32);
    DecodeGguf(GgufType::kQ8_0, reinterpret_cast<const char*>(&block), 32, decoded.data());
    EXPECT_EQ(decoded[5], 0.0f);
    EXPECT_EQ(FirstBeyondRounding(GgufType::kQ8_0, source.data(), decoded.data(), 32), -1);
  }
}

TEST(GgufEncodingTest, LargestIsTheLastThatStaysFinite) {
  for (const GgufType type : {GgufType::kF16, GgufType::kBf16, GgufType::kQ8_0}) {
    SCOPED_TRACE(GgufTypeName(type));
    const auto largest_after = [type](float value) {
      const std::vector<float> source(32, value);
      std::vector<char> encoded(static_cast<size_t>(GgufBytes(type, 32)));
      std::vector<float> decoded(32);
      EncodeGguf(type, source.data(), 32, encoded.data());
      DecodeGguf(type, encoded.data(), 32, decoded.data());
      return decoded[0];
    };
    EXPECT_TRUE(std::isfinite(largest_after(GgufLargest(type))));
    EXPECT_FALSE(std::isfinite(largest_after(GgufLargest(type) * 1.0001f)));
  }
  EXPECT_TRUE(std::isfinite(GgufLargest(GgufType::kF32)));
}

TEST(GgufEncodingTest, RoundingIsExplainedAndNothingMore) {
  const unsigned seed = 77;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (const GgufType type : {GgufType::kF32, GgufType::kF16, GgufType::kBf16, GgufType::kQ8_0}) {
    SCOPED_TRACE(GgufTypeName(type));
    for (const float scale : {1e-8f, 1e-3f, 1.0f, 300.0f}) {
      std::vector<float> source(320), decoded(320);
      for (float& value : source) value = scale * normal(random);
      std::vector<char> encoded(static_cast<size_t>(GgufBytes(type, 320)));
      EncodeGguf(type, source.data(), 320, encoded.data());
      DecodeGguf(type, encoded.data(), 320, decoded.data());
      EXPECT_EQ(FirstBeyondRounding(type, source.data(), decoded.data(), 320), -1) << scale;
      if (scale < 1e-4f) continue;
      decoded[200] += 0.04f * std::fabs(source[200]) + 0.04f * scale;
      EXPECT_EQ(FirstBeyondRounding(type, source.data(), decoded.data(), 320), 200) << scale;
      decoded[200] = std::nanf("");
      EXPECT_EQ(FirstBeyondRounding(type, source.data(), decoded.data(), 320), 200) << scale;
    }
  }
}

}  // namespace
}  // namespace finetuned
