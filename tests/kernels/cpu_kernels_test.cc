// CPU kernels against their plain references at odd sizes, with poisoned outputs, and gradients
// against finite differences.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/nf4/nf4.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/swiglu/swiglu.h"

namespace finetuned::kernels {
namespace {

using Vector = std::vector<float>;
const float kPoison = std::numeric_limits<float>::quiet_NaN();

Vector Random(int64_t n, uint32_t seed, float scale = 1) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, scale);
  Vector values(static_cast<size_t>(n));
  for (float& value : values) value = normal(engine);
  return values;
}
Vector Poisoned(int64_t n) { return Vector(static_cast<size_t>(n), kPoison); }

// max |a − b| ≤ tolerance · max(|b|, floor), and no NaN left. floor: the size of terms that may
// cancel in b.
void ExpectClose(const Vector& a, const Vector& b, double tolerance, double floor = 0) {
  double largest = floor, difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_FALSE(std::isnan(a[i])) << "element " << i << " was not written";
    largest = std::max<double>(largest, std::fabs(b[i]));
    difference = std::max<double>(difference, std::fabs(a[i] - b[i]));
  }
  EXPECT_LE(difference, tolerance * largest);
}

class OddSizes : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Sizes, OddSizes, testing::Values(1, 59, 97, 1025));

TEST_P(OddSizes, RmsNorm) {
  const int64_t t = 7, d = GetParam();
  const Vector x = Random(t * d, 1), delta = Random(t * d, 2), w = Random(d, 3),
               dy = Random(t * d, 4);
  const Vector dh = Random(t * d, 5);
  for (const bool with_delta : {false, true}) {
    const float* add = with_delta ? delta.data() : nullptr;
    Vector h = Poisoned(t * d), y = Poisoned(t * d), r = Poisoned(t), h2 = h, y2 = y, r2 = r;
    AddRmsNormForward(x.data(), add, w.data(), 1e-5f, t, d, h.data(), y.data(), r.data());
    AddRmsNormForwardReference(x.data(), add, w.data(), 1e-5f, t, d, h2.data(), y2.data(),
                               r2.data());
    ExpectClose(y, y2, 2e-6);
    ExpectClose(r, r2, 2e-6);
    const Vector& normed = with_delta ? h2 : x;
    for (const float* through : {static_cast<const float*>(nullptr), dh.data()}) {
      Vector dx = Poisoned(t * d), dx2 = dx;
      AddRmsNormBackward(dy.data(), through, normed.data(), w.data(), r2.data(), t, d, dx.data());
      AddRmsNormBackwardReference(dy.data(), through, normed.data(), w.data(), r2.data(), t, d,
                                  dx2.data());
      ExpectClose(dx, dx2, 5e-6, /*floor=*/1);
    }
  }
}

TEST_P(OddSizes, SwiGlu) {
  const int64_t t = 5, f = GetParam();
  Vector gate_up = Random(t * 2 * f, 1, 3);
  gate_up[0] = 200;  // beyond the range of e^x on both sides
  gate_up[static_cast<size_t>(f)] = 1;
  if (f > 1) gate_up[1] = -200;
  const Vector d_act = Random(t * f, 2);
  Vector act = Poisoned(t * f), act2 = act, d = Poisoned(t * 2 * f), d2 = d;
  SwiGluForward(gate_up.data(), t, f, act.data());
  SwiGluForwardReference(gate_up.data(), t, f, act2.data());
  ExpectClose(act, act2, 1e-6);
  SwiGluBackward(d_act.data(), gate_up.data(), t, f, d.data());
  SwiGluBackwardReference(d_act.data(), gate_up.data(), t, f, d2.data());
  ExpectClose(d, d2, 1e-6);
}

TEST_P(OddSizes, CrossEntropy) {
  const int64_t m = 6, v = GetParam();
  Vector logits = Random(m * v, 1, 10), logits2 = logits, loss = Poisoned(m), loss2 = loss;
  std::vector<int64_t> targets;
  for (int64_t i = 0; i < m; ++i) targets.push_back((i * 31) % v);
  CrossEntropy(logits.data(), targets.data(), m, v, /*gradient=*/false, loss.data());
  EXPECT_EQ(logits, logits2) << "logits change only when the gradient is asked for";
  CrossEntropy(logits.data(), targets.data(), m, v, /*gradient=*/true, loss.data());
  CrossEntropyReference(logits2.data(), targets.data(), m, v, /*gradient=*/true, loss2.data());
  for (int64_t i = 0; i < m; ++i) EXPECT_NEAR(loss[i], loss2[i], 2e-6 * std::max(1.0f, loss2[i]));
  for (size_t i = 0; i < logits.size(); ++i) EXPECT_NEAR(logits[i], logits2[i], 1e-6);
}

TEST(CrossEntropy, NonFiniteLogitsReachTheLoss) {
  for (const float bad : {kPoison, std::numeric_limits<float>::infinity()}) {
    for (const size_t at : {size_t{0}, size_t{40}}) {
      Vector logits = Random(64, 1), loss(1);
      logits[at] = bad;
      const int64_t target = 3;
      CrossEntropy(logits.data(), &target, 1, 64, true, loss.data());
      EXPECT_FALSE(std::isfinite(loss[0])) << bad << " at " << at;
    }
  }
}

struct AttentionCase {
  std::vector<int64_t> lengths;
  int64_t heads, kv_heads, head_dim;
};

struct AttentionData {
  explicit AttentionData(const AttentionCase& c) {
    for (int64_t length : c.lengths) boundaries.push_back(boundaries.back() + length);
    shape = {boundaries.data(), static_cast<int64_t>(c.lengths.size()),       c.heads, c.kv_heads,
             c.head_dim,        1 / std::sqrt(static_cast<float>(c.head_dim))};
    t = boundaries.back();
    qkv = Random(t * shape.row(), 1);
    for (float angle : Random(t * c.head_dim / 2, 2)) {
      cos.push_back(std::cos(angle));
      sin.push_back(std::sin(angle));
    }
    out = Poisoned(t * c.heads * c.head_dim);
    lse = Poisoned(t * c.heads);
  }
  void Forward() {
    RotaryAttentionForward(shape, qkv.data(), cos.data(), sin.data(), out.data(), lse.data());
  }

  std::vector<int64_t> boundaries = {0};
  AttentionShape shape;
  int64_t t = 0;
  Vector qkv, cos, sin, out, lse;
};

const AttentionCase kAttentionCases[] = {
    {{1}, 1, 1, 2}, {{5, 1, 0, 9}, 4, 2, 6}, {{59, 97}, 3, 1, 64}, {{129, 300, 2}, 2, 2, 10}};

TEST(Attention, ForwardEqualsReference) {
  for (const AttentionCase& c : kAttentionCases) {
    AttentionData ours(c), plain(c);
    ours.Forward();
    RotaryAttentionForwardReference(plain.shape, plain.qkv.data(), plain.cos.data(),
                                    plain.sin.data(), plain.out.data(), plain.lse.data());
    ExpectClose(ours.qkv, plain.qkv, 1e-6);
    ExpectClose(ours.out, plain.out, 5e-6);
    ExpectClose(ours.lse, plain.lse, 5e-6);
  }
}

// d/dx of Σ g · out along a random direction, by central differences of the double-precision
// reference.
TEST(Attention, BackwardEqualsFiniteDifferences) {
  for (const AttentionCase& c : kAttentionCases) {
    AttentionData data(c);
    const Vector before = data.qkv, g = Random(data.t * c.heads * c.head_dim, 3);
    data.Forward();
    Vector d_qkv = Poisoned(static_cast<int64_t>(data.qkv.size()));
    RotaryAttentionBackward(data.shape, g.data(), data.qkv.data(), data.cos.data(), data.sin.data(),
                            data.out.data(), data.lse.data(), d_qkv.data());
    for (uint32_t seed = 10; seed < 14; ++seed) {
      const Vector direction = Random(static_cast<int64_t>(before.size()), seed);
      const auto value = [&](float step) {
        AttentionData moved(c);
        for (size_t i = 0; i < before.size(); ++i) moved.qkv[i] = before[i] + step * direction[i];
        RotaryAttentionForwardReference(moved.shape, moved.qkv.data(), moved.cos.data(),
                                        moved.sin.data(), moved.out.data(), moved.lse.data());
        double sum = 0;
        for (size_t i = 0; i < g.size(); ++i) sum += double{g[i]} * moved.out[i];
        return sum;
      };
      double analytic = 0, size = 0;
      for (size_t i = 0; i < d_qkv.size(); ++i) {
        ASSERT_FALSE(std::isnan(d_qkv[i]));
        analytic += double{d_qkv[i]} * direction[i];
        size += double{d_qkv[i]} * d_qkv[i];
      }
      const double numeric = (value(1e-2f) - value(-1e-2f)) / 2e-2;
      EXPECT_NEAR(analytic, numeric, 2e-2 * std::sqrt(size) + 1e-3);
    }
  }
}

TEST(Attention, DocumentsDoNotSeeEachOther) {
  const AttentionCase both{{40, 30}, 2, 1, 8}, alone{{30}, 2, 1, 8};
  AttentionData packed(both), single(alone);
  const int64_t row = packed.shape.row();
  std::copy(packed.qkv.begin() + 40 * row, packed.qkv.end(), single.qkv.begin());
  std::copy(packed.cos.begin() + 40 * 4, packed.cos.end(), single.cos.begin());
  std::copy(packed.sin.begin() + 40 * 4, packed.sin.end(), single.sin.begin());
  packed.Forward();
  single.Forward();
  EXPECT_TRUE(std::equal(single.out.begin(), single.out.end(), packed.out.begin() + 40 * 16));
}

TEST(Nf4, DynamicMapIsAscendingAndSymmetric) {
  const float* map = DynamicMap();
  for (int i = 1; i < 256; ++i) EXPECT_LT(map[i - 1], map[i]) << i;
  for (int i = 0; i < 127; ++i) EXPECT_EQ(map[i], -map[254 - i]) << i;
  EXPECT_EQ(map[127], 0);
  EXPECT_EQ(map[255], 1);
  // Golden: bitsandbytes 0.50.2 create_dynamic_map()[254], [128]
  // (tests/reference/bitsandbytes_parity.py compares all).
  EXPECT_EQ(map[254], 0.992968738079071f);
  EXPECT_EQ(map[128], 5.500000384017767e-07f);
}

TEST_P(OddSizes, CodesAreNearestAndPacked) {
  const int64_t n = GetParam(), blocks = (n + 63) / 64;
  const Vector x = Random(n, 9);
  for (const Code4 code : {Code4::kNf4, Code4::kFp4}) {
    std::vector<uint8_t> packed(static_cast<size_t>((n + 1) / 2), 0xcd);
    Vector absmax = Poisoned(blocks), back = Poisoned(n);
    Quantize4Bit(x.data(), n, 64, code, packed.data(), absmax.data());
    Dequantize4Bit(packed.data(), absmax.data(), 0, n, 64, code, back.data());
    const float* values = code == Code4::kNf4 ? kNf4Values : kFp4Values;
    for (int64_t i = 0; i < n; ++i) {
      float nearest = std::numeric_limits<float>::infinity();
      for (int c = 0; c < 16; ++c)
        nearest = std::min(nearest, std::fabs(values[c] * absmax[i / 64] - x[i]));
      EXPECT_LE(std::fabs(back[i] - x[i]), nearest + 1e-6) << i;
    }
  }
}

}  // namespace
}  // namespace finetuned::kernels
