#include "kernels/base/gemm_cuda.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace finetuned::kernels {
namespace {

// More shapes than a training run with bucketed lengths meets; beyond it the plans are made anew.
constexpr size_t kMostPlans = 8192;

void Check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw std::runtime_error(std::string("cuBLASLt ") + what + ": " +
                             cublasLtGetStatusString(status));
  }
}

// The alignment that may be promised for a pointer; device allocations are aligned to 256 bytes.
int64_t Alignment(const void* pointer) {
  const auto address = reinterpret_cast<int64_t>(pointer);
  return std::min<int64_t>(256, address & -address);
}

// A row-major matrix is, to the library, its transpose in column-major order.
struct Layout {
  cublasLtMatrixLayout_t handle = nullptr;
  Layout(const GemmMatrix& m, int batch) {
    Check(cublasLtMatrixLayoutCreate(&handle, m.fp32 ? CUDA_R_32F : CUDA_R_16BF,
                                     static_cast<uint64_t>(m.columns),
                                     static_cast<uint64_t>(m.rows), m.stride),
          "matrix layout");
    if (batch > 1) {
      const int32_t count = batch;
      Check(cublasLtMatrixLayoutSetAttribute(handle, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                             sizeof count),
            "batch count");
      Check(cublasLtMatrixLayoutSetAttribute(handle, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                             &m.batch_stride, sizeof m.batch_stride),
            "batch stride");
    }
  }
  ~Layout() { cublasLtMatrixLayoutDestroy(handle); }
  Layout(const Layout&) = delete;
};

}  // namespace

struct GemmCuda::Plan {
  Plan(const GemmMatrix& a_in, const GemmMatrix& b_in, const GemmMatrix& d_in, int batch)
      : a(a_in, batch), b(b_in, batch), d(d_in, batch) {}
  ~Plan() { cublasLtMatmulDescDestroy(operation); }
  Layout a, b, d;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
};

GemmCuda::GemmCuda() { Check(cublasLtCreate(&handle_), "handle"); }

GemmCuda::~GemmCuda() {
  plans_.clear();
  cublasLtDestroy(handle_);
}

const GemmCuda::Plan& GemmCuda::FindPlan(const Key& key, const GemmMatrix& a, const GemmMatrix& b,
                                         const GemmMatrix& d, const GemmOptions& options) {
  if (const auto found = plans_.find(key); found != plans_.end()) return *found->second;
  const int64_t m = options.transpose_a ? a.columns : a.rows,
                k = options.transpose_a ? a.rows : a.columns,
                k_of_b = options.transpose_b ? b.columns : b.rows,
                n = options.transpose_b ? b.rows : b.columns;
  if (m != d.rows || n != d.columns || k != k_of_b) {
    throw std::runtime_error("matrix product: " + std::to_string(m) + "×" + std::to_string(k) +
                             " times " + std::to_string(k_of_b) + "×" + std::to_string(n) +
                             " into " + std::to_string(d.rows) + "×" + std::to_string(d.columns));
  }
  auto plan = std::make_unique<Plan>(a, b, d, options.batch);
  Check(cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "operation");
  const int32_t op_a = options.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                op_b = options.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  // Dᵀ = op(B)ᵀ op(A)ᵀ: the library's first operand is our second.
  Check(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &op_b,
                                       sizeof op_b),
        "operation");
  Check(cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &op_a,
                                       sizeof op_a),
        "operation");
  cublasLtMatmulPreference_t preference = nullptr;
  Check(cublasLtMatmulPreferenceCreate(&preference), "preference");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    Check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value),
          "preference");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, static_cast<uint32_t>(key[15]));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, static_cast<uint32_t>(key[14]));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, static_cast<uint32_t>(key[17]));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, static_cast<uint32_t>(key[16]));
  cublasLtMatmulHeuristicResult_t found = {};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, plan->operation, plan->b.handle, plan->a.handle,
                                     plan->d.handle, plan->d.handle, preference, 1, &found, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  Check(status, "choice of algorithm");
  if (count == 0) throw std::runtime_error("cuBLASLt has no algorithm for a matrix product");
  plan->algorithm = found.algo;
  if (plans_.size() >= kMostPlans) plans_.clear();
  return *plans_.emplace(key, std::move(plan)).first->second;
}

void GemmCuda::Multiply(const GemmMatrix& a, const GemmMatrix& b, const GemmMatrix& d,
                        const void* c, const GemmOptions& options, cudaStream_t stream) {
  if (d.rows == 0 || d.columns == 0) return;
  const void* added = c == nullptr ? d.data : c;
  const Key key = {a.rows,
                   a.columns,
                   a.stride,
                   a.batch_stride,
                   b.rows,
                   b.columns,
                   b.stride,
                   b.batch_stride,
                   d.rows,
                   d.columns,
                   d.stride,
                   d.batch_stride,
                   options.batch,
                   (options.transpose_a ? 1 : 0) | (options.transpose_b ? 2 : 0) |
                       (d.fp32 ? 4 : 0) | (c != nullptr ? 8 : 0),
                   Alignment(a.data),
                   Alignment(b.data),
                   Alignment(d.data),
                   Alignment(added)};
  const Plan& plan = FindPlan(key, a, b, d, options);
  const float beta = c == nullptr ? 0.0f : 1.0f;
  Check(cublasLtMatmul(handle_, plan.operation, &options.alpha, b.data, plan.b.handle, a.data,
                       plan.a.handle, &beta, added, plan.d.handle, d.data, plan.d.handle,
                       &plan.algorithm, workspace_, static_cast<size_t>(kWorkspaceBytes), stream),
        "product");
}

}  // namespace finetuned::kernels
