#include <algorithm>
#include <cmath>

#include "kernels/cross_entropy/cross_entropy.h"

namespace finetuned::kernels {

void CrossEntropyReference(float* logits, const int64_t* targets, int64_t m, int64_t v,
                           bool gradient, float* loss) {
  for (int64_t row = 0; row < m; ++row) {
    float* z = logits + row * v;
    const double largest = *std::max_element(z, z + v);
    double total = 0;
    for (int64_t i = 0; i < v; ++i) total += std::exp(z[i] - largest);
    loss[row] = static_cast<float>(std::log(total) + largest - z[targets[row]]);
    for (int64_t i = 0; gradient && i < v; ++i) {
      z[i] = static_cast<float>(std::exp(z[i] - largest) / total - (i == targets[row] ? 1 : 0));
    }
  }
}

}  // namespace finetuned::kernels
