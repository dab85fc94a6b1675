// Root mean square normalisation with the residual addition before it (Zhang and Sennrich, 2019),
// fp32 on the CPU.
//
//   h = x + delta,   rstd = 1 / sqrt(mean(h²) + eps),   y = w · h · rstd
//   dh_total = dh + rstd · (g − ĥ · mean(g · ĥ)),  g = dy · w,  ĥ = h · rstd
//
// Row-major [t, d], contiguous. Threaded over rows; each row is computed by one thread, so results
// do not depend on the number of threads.
#pragma once

#include <cstdint>

namespace finetuned::kernels {

// delta null: h is x and is not written (h may be null).
void AddRmsNormForward(const float* x, const float* delta, const float* w, float eps, int64_t t,
                       int64_t d, float* h, float* y, float* rstd);

// dh null: nothing reaches h but through y. dx: gradient of x, and of delta.
void AddRmsNormBackward(const float* dy, const float* dh, const float* h, const float* w,
                        const float* rstd, int64_t t, int64_t d, float* dx);

// The same in plain loops in double precision, for tests.
void AddRmsNormForwardReference(const float* x, const float* delta, const float* w, float eps,
                                int64_t t, int64_t d, float* h, float* y, float* rstd);
void AddRmsNormBackwardReference(const float* dy, const float* dh, const float* h, const float* w,
                                 const float* rstd, int64_t t, int64_t d, float* dx);

}  // namespace finetuned::kernels
