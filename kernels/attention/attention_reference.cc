#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/attention/attention.h"

namespace finetuned::kernels {

void RotaryAttentionForwardReference(const AttentionShape& shape, float* qkv, const float* cos,
                                     const float* sin, float* out, float* lse) {
  const int64_t e = shape.head_dim, half = e / 2, ld = shape.row();
  for (int64_t t = 0; t < shape.cu_seqlens[shape.documents]; ++t) {
    for (int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
      for (int64_t i = 0; i < half; ++i) {
        float &x1 = qkv[t * ld + head * e + i], &x2 = qkv[t * ld + head * e + half + i];
        const double c = cos[t * half + i], s = sin[t * half + i], a = x1, b = x2;
        x1 = static_cast<float>(a * c - b * s);
        x2 = static_cast<float>(b * c + a * s);
      }
    }
  }
  for (int64_t document = 0; document < shape.documents; ++document) {
    for (int64_t t = shape.cu_seqlens[document]; t < shape.cu_seqlens[document + 1]; ++t) {
      for (int64_t head = 0; head < shape.heads; ++head) {
        const int64_t kv_head = head / (shape.heads / shape.kv_heads);
        std::vector<double> scores;
        for (int64_t u = shape.cu_seqlens[document]; u <= t; ++u) {
          double score = 0;
          for (int64_t i = 0; i < e; ++i) {
            score +=
                double{qkv[t * ld + head * e + i]} * qkv[u * ld + (shape.heads + kv_head) * e + i];
          }
          scores.push_back(score * shape.scale);
        }
        const double largest = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double score : scores) sum += std::exp(score - largest);
        lse[t * shape.heads + head] = static_cast<float>(largest + std::log(sum));
        for (int64_t i = 0; i < e; ++i) {
          double value = 0;
          for (size_t u = 0; u < scores.size(); ++u) {
            const int64_t row = shape.cu_seqlens[document] + static_cast<int64_t>(u);
            value += std::exp(scores[u] - largest) / sum *
                     qkv[row * ld + (shape.heads + shape.kv_heads + kv_head) * e + i];
          }
          out[(t * shape.heads + head) * e + i] = static_cast<float>(value);
        }
      }
    }
  }
}

}  // namespace finetuned::kernels
