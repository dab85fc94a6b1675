// Matrix products on a GPU through cuBLASLt: D = alpha · op(A) · op(B) + C, bf16 operands, fp32
// accumulation, row-major, strided. The algorithm of a shape is the first one that the library's
// heuristic names with reductions in fp32 alone: it depends on device, library version, shape and
// alignment, not on timing, so that another process computes the same bits.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>

namespace finetuned::kernels {

// rows × columns as stored (before op), `stride` elements from row to row; in a batch, matrices are
// `batch_stride` elements apart.
struct GemmMatrix {
  void* data = nullptr;
  int64_t rows = 0, columns = 0, stride = 0;
  int64_t batch_stride = 0;
  bool fp32 = false;  // D and C only
};

struct GemmOptions {
  bool transpose_a = false, transpose_b = false;
  float alpha = 1;
  int batch = 1;
};

class GemmCuda {
 public:
  // workspace: device memory of kWorkspaceBytes that outlives this object and is used on one
  // stream.
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;
  GemmCuda();
  ~GemmCuda();
  GemmCuda(const GemmCuda&) = delete;
  GemmCuda& operator=(const GemmCuda&) = delete;

  void set_workspace(void* workspace) { workspace_ = workspace; }
  // c may be null (0), d's own memory, or another matrix of its shape and stride. Throws
  // std::runtime_error when shapes do not fit or no algorithm exists.
  void Multiply(const GemmMatrix& a, const GemmMatrix& b, const GemmMatrix& d, const void* c,
                const GemmOptions& options, cudaStream_t stream);

 private:
  struct Plan;
  using Key = std::array<int64_t, 18>;
  const Plan& FindPlan(const Key& key, const GemmMatrix& a, const GemmMatrix& b,
                       const GemmMatrix& d, const GemmOptions& options);

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace finetuned::kernels
