// Causal attention of attention.h on a GPU in bf16 through cuDNN's graph API, with its
// deterministic backward pass: documents laid end to end, grouped queries, all tensors strided
// views, no copies.
//
// Documents of one length, a multiple of 128, run as a dense batch; others through offsets of each
// document ("ragged"), in plans for bucketed sizes, so that a run meets few shapes. The
// deterministic backward pass takes a workspace of documents · heads · longest² · 2 bytes: it runs
// in groups of documents, or of heads where one document alone is too large, and a group of one
// head is the least there is.
//
// Errors: std::runtime_error with cuDNN's text. One instance serves one stream at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace finetuned::kernels {

struct CudnnAttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  // Elements from token to token: of Q|K|V, of the output, of its gradient, of the gradient of
  // Q|K|V.
  int64_t qkv_stride = 0, out_stride = 0, d_out_stride = 0, d_qkv_stride = 0;
};

class CudnnAttention {
 public:
  // Whether libcudnn can be loaded and the current device runs these kernels deterministically
  // (compute capability 9.0 and 10.x).
  static bool Available();

  explicit CudnnAttention(const CudnnAttentionShape& shape);
  ~CudnnAttention();

  // Documents of the calls that follow; cu_seqlens as in attention.h. backward_limit bounds the
  // workspace of the backward pass as far as groups can. Plans of shapes not seen before are built
  // here (tenths of a second each).
  // A limit of 0: there will be no backward pass.
  void SetDocuments(const std::vector<int64_t>& cu_seqlens, int64_t backward_limit);
  // What the caller has to copy to the device and name in every call (empty: a dense batch).
  const std::vector<int32_t>& offsets() const { return offsets_; }
  int64_t workspace_bytes() const { return workspace_bytes_; }

  // qkv: rotated Q | K | V; out [t, h e]; stats [heads · t] fp32, kept for the backward pass.
  void Forward(const __nv_bfloat16* qkv, const int32_t* offsets, __nv_bfloat16* out, float* stats,
               void* workspace, cudaStream_t stream);
  void Backward(const __nv_bfloat16* d_out, const __nv_bfloat16* qkv, const int32_t* offsets,
                const __nv_bfloat16* out, const float* stats, __nv_bfloat16* d_qkv, void* workspace,
                cudaStream_t stream);

 private:
  struct Plan;
  // A call: some documents, some heads.
  struct Group {
    const Plan* plan = nullptr;
    int64_t first_document = 0, first_token = 0, first_kv_head = 0;
    int64_t offsets_at = 0, offsets_span = 0;  // ragged
  };
  struct PlanKey {
    bool backward, ragged;
    int64_t documents, kv_heads, longest, total;
    auto operator<=>(const PlanKey&) const = default;
  };
  const Plan& FindPlan(const PlanKey& key);
  void AddGroup(bool backward, const std::vector<int64_t>& cu_seqlens, size_t begin, size_t end,
                int64_t first_kv_head, int64_t kv_heads);
  void Run(const Group& group, const int32_t* offsets, const __nv_bfloat16* qkv, __nv_bfloat16* out,
           float* stats, const __nv_bfloat16* d_out, __nv_bfloat16* d_qkv, void* workspace);

  CudnnAttentionShape shape_;
  void* handle_ = nullptr;
  std::map<PlanKey, std::unique_ptr<Plan>> plans_;
  bool ragged_ = false;
  int64_t length_ = 0;  // of each document of a dense batch
  std::vector<Group> forward_, backward_;
  std::vector<int32_t> offsets_;
  int64_t workspace_bytes_ = 0;
};

}  // namespace finetuned::kernels
