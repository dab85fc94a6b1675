// Token cross-entropy over rows of logits, fp32 on the CPU.
//
//   loss_i = logsumexp(z_i) − z_i[target_i],   dz_i = softmax(z_i) − onehot(target_i)
#pragma once

#include <cstdint>

namespace finetuned::kernels {

// logits [m, v] row-major; targets [m] in [0, v); loss [m]. With `gradient`, logits are replaced by
// dz.
void CrossEntropy(float* logits, const int64_t* targets, int64_t m, int64_t v, bool gradient,
                  float* loss);

// The same in plain loops in double precision, for tests.
void CrossEntropyReference(float* logits, const int64_t* targets, int64_t m, int64_t v,
                           bool gradient, float* loss);

}  // namespace finetuned::kernels
