#include "kernels/attention/attention_cudnn.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#include <cudnn_frontend.h>

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace finetuned::kernels {
namespace {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

// Names of the tensors of a graph.
enum Uid : int64_t {
  kQ = 1,
  kK,
  kV,
  kOut,
  kStats,
  kDOut,
  kDQ,
  kDK,
  kDV,
  kQkvOffsets,
  kOutOffsets,
  kStatsOffsets,
  kDOutOffsets,
  kDQkvOffsets,
  kLengths
};
// The arrays of a ragged group, one after the other in `offsets`, in this order; each has a value a
// document and one for the end (the lengths have none), and begins at a multiple of 128 bytes.
constexpr int kOffsetArrays = 6;
constexpr int64_t kOffsetUnit = 32;

bool LoadCudnn() {
  if (fe::cudnn_dlhandle == nullptr) fe::cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW);
  return fe::cudnn_dlhandle != nullptr;
}

void Check(fe::error_t error, const char* what) {
  if (error.is_bad()) {
    throw std::runtime_error(std::string("cuDNN attention, ") + what + ": " + error.get_message());
  }
}
void Check(cudnnStatus_t status, const char* what) {
  if (status != CUDNN_STATUS_SUCCESS) {
    throw std::runtime_error(std::string("cuDNN attention, ") + what + ": " +
                             fe::detail::get_error_string(status));
  }
}

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

int64_t PowerOfTwo(int64_t n) {
  int64_t power = 1;
  while (power < n) power *= 2;
  return power;
}

// Few sizes, at most a quarter above what is needed: multiples of an eighth of the power of two
// below, and of 128.
int64_t Bucket(int64_t n) { return RoundUp(n, std::max<int64_t>(128, PowerOfTwo(n + 1) / 8)); }

int64_t BackwardBytes(int64_t documents, int64_t heads, int64_t longest) {
  const int64_t s = RoundUp(longest, 128);
  return documents * heads * s * s * 2;
}

}  // namespace

struct CudnnAttention::Plan {
  fe::graph::Graph graph;
  int64_t heads = 0, workspace = 0;
};

bool CudnnAttention::Available() {
  int device = 0, major = 0;
  return LoadCudnn() && cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
         (major == 9 || major == 10);
}

CudnnAttention::CudnnAttention(const CudnnAttentionShape& shape) : shape_(shape) {
  if (!LoadCudnn()) throw std::runtime_error("cuDNN attention: libcudnn.so.9 cannot be loaded");
  cudnnHandle_t handle = nullptr;
  Check(fe::detail::create_handle(&handle), "handle");
  handle_ = handle;
}

CudnnAttention::~CudnnAttention() {
  plans_.clear();
  fe::detail::destroy_handle(static_cast<cudnnHandle_t>(handle_));
}

const CudnnAttention::Plan& CudnnAttention::FindPlan(const PlanKey& key) {
  if (const auto found = plans_.find(key); found != plans_.end()) return *found->second;
  const int64_t b = key.documents, k = key.kv_heads, h = k * (shape_.heads / shape_.kv_heads);
  const int64_t s = key.longest, e = shape_.head_dim;
  auto plan = std::make_unique<Plan>();
  plan->heads = h;
  fe::graph::Graph& graph = plan->graph;
  graph.set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  const auto integers = [&](const char* name, Uid uid, int64_t count) -> Tensor {
    if (!key.ragged) return nullptr;
    return graph.tensor(fe::graph::Tensor_attributes()
                            .set_name(name)
                            .set_uid(uid)
                            .set_dim({count, 1, 1, 1})
                            .set_stride({1, 1, 1, 1})
                            .set_data_type(fe::DataType_t::INT32));
  };
  const Tensor qkv_offsets = integers("qkv_offsets", kQkvOffsets, b + 1);
  const Tensor out_offsets = integers("out_offsets", kOutOffsets, b + 1);
  const Tensor stats_offsets = integers("stats_offsets", kStatsOffsets, b + 1);
  const Tensor lengths = integers("lengths", kLengths, b);
  const auto heads_of = [&](const char* name, Uid uid, int64_t heads, int64_t stride,
                            const Tensor& offsets) {
    auto attributes = fe::graph::Tensor_attributes()
                          .set_name(name)
                          .set_uid(uid)
                          .set_dim({b, heads, s, e})
                          .set_stride({s * stride, e, stride, 1})
                          .set_data_type(fe::DataType_t::BFLOAT16);
    if (key.ragged) attributes.set_ragged_offset(offsets);
    return graph.tensor(attributes);
  };
  const Tensor q = heads_of("q", kQ, h, shape_.qkv_stride, qkv_offsets);
  const Tensor key_heads = heads_of("k", kK, k, shape_.qkv_stride, qkv_offsets);
  const Tensor v = heads_of("v", kV, k, shape_.qkv_stride, qkv_offsets);
  // Packed statistics: [document, head, position], or ragged [token, head] of all heads.
  const std::vector<int64_t> stats_dim = {b, h, s, 1};
  const std::vector<int64_t> stats_stride =
      key.ragged ? std::vector<int64_t>{s * shape_.heads, 1, shape_.heads, 1}
                 : std::vector<int64_t>{h * s, s, 1, 1};
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(e)));
  if (!key.backward) {
    auto options = fe::graph::SDPA_attributes()
                       .set_name("attention")
                       .set_generate_stats(true)
                       .set_attn_scale(scale)
                       .set_causal_mask(true);
    if (key.ragged) {
      options.set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
    }
    auto [out, stats] = graph.sdpa(q, key_heads, v, options);
    out->set_output(true)
        .set_uid(kOut)
        .set_dim({b, h, s, e})
        .set_stride({s * shape_.out_stride, e, shape_.out_stride, 1});
    stats->set_output(true)
        .set_uid(kStats)
        .set_data_type(fe::DataType_t::FLOAT)
        .set_dim(stats_dim)
        .set_stride(stats_stride);
    if (key.ragged) {
      out->set_ragged_offset(out_offsets);
      stats->set_ragged_offset(stats_offsets);
    }
  } else {
    const Tensor d_out_offsets = integers("d_out_offsets", kDOutOffsets, b + 1);
    const Tensor d_qkv_offsets = integers("d_qkv_offsets", kDQkvOffsets, b + 1);
    const Tensor out = heads_of("out", kOut, h, shape_.out_stride, out_offsets);
    const Tensor d_out = heads_of("d_out", kDOut, h, shape_.d_out_stride, d_out_offsets);
    auto stats_attributes = fe::graph::Tensor_attributes()
                                .set_name("stats")
                                .set_uid(kStats)
                                .set_dim(stats_dim)
                                .set_stride(stats_stride)
                                .set_data_type(fe::DataType_t::FLOAT);
    if (key.ragged) stats_attributes.set_ragged_offset(stats_offsets);
    const Tensor stats = graph.tensor(stats_attributes);
    auto options = fe::graph::SDPA_backward_attributes()
                       .set_name("attention_backward")
                       .set_attn_scale(scale)
                       .set_causal_mask(true)
                       .set_deterministic_algorithm(true);
    if (key.ragged) {
      options.set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
      options.set_max_total_seq_len_q(key.total).set_max_total_seq_len_kv(key.total);
    }
    auto [dq, dk, dv] = graph.sdpa_backward(q, key_heads, v, out, d_out, stats, options);
    const auto gradient = [&](const Tensor& tensor, Uid uid, int64_t heads) {
      tensor->set_output(true)
          .set_uid(uid)
          .set_dim({b, heads, s, e})
          .set_stride({s * shape_.d_qkv_stride, e, shape_.d_qkv_stride, 1});
      if (key.ragged) tensor->set_ragged_offset(d_qkv_offsets);
    };
    gradient(dq, kDQ, h);
    gradient(dk, kDK, k);
    gradient(dv, kDV, k);
  }
  const auto handle = static_cast<cudnnHandle_t>(handle_);
  const char* what = key.backward ? "backward plan" : "forward plan";
  Check(graph.validate(), what);
  Check(graph.build_operation_graph(handle), what);
  Check(graph.create_execution_plans({fe::HeurMode_t::A, fe::HeurMode_t::FALLBACK}), what);
  Check(graph.check_support(handle), what);
  // The first plan of the heuristic that builds: chosen by shape and version, not by timing.
  Check(graph.build_plans(handle, fe::BuildPlanPolicy_t::HEURISTICS_CHOICE), what);
  Check(graph.get_workspace_size(plan->workspace), what);
  return *plans_.emplace(key, std::move(plan)).first->second;
}

void CudnnAttention::AddGroup(bool backward, const std::vector<int64_t>& cu_seqlens, size_t begin,
                              size_t end, int64_t first_kv_head, int64_t kv_heads) {
  PlanKey key = {backward, ragged_, static_cast<int64_t>(end - begin), kv_heads, length_, 0};
  Group group;
  group.first_document = static_cast<int64_t>(begin);
  group.first_token = cu_seqlens[begin];
  group.first_kv_head = first_kv_head;
  if (ragged_) {
    int64_t longest = 1;
    for (size_t i = begin; i < end; ++i) {
      longest = std::max(longest, cu_seqlens[i + 1] - cu_seqlens[i]);
    }
    key.documents = PowerOfTwo(key.documents);
    key.longest = Bucket(longest);
    // One bound for all groups of a batch: it sizes cuDNN's own buffers, and fewer plans are built.
    if (backward) key.total = Bucket(cu_seqlens.back());
    group.offsets_at = static_cast<int64_t>(offsets_.size());
    group.offsets_span = RoundUp(key.documents + 1, kOffsetUnit);
    const int64_t strides[] = {shape_.qkv_stride, shape_.out_stride, shape_.heads,
                               shape_.d_out_stride, shape_.d_qkv_stride};
    for (int64_t stride : strides) {
      for (int64_t i = 0; i < group.offsets_span; ++i) {
        const size_t at = std::min(begin + static_cast<size_t>(i), end);
        const int64_t offset = (cu_seqlens[at] - cu_seqlens[begin]) * stride;
        if (offset > INT32_MAX) {
          throw std::runtime_error("cuDNN attention: a micro-batch has too many tokens");
        }
        offsets_.push_back(static_cast<int32_t>(offset));
      }
    }
    for (int64_t i = 0; i < group.offsets_span; ++i) {
      const size_t at = begin + static_cast<size_t>(i);
      offsets_.push_back(at < end ? static_cast<int32_t>(cu_seqlens[at + 1] - cu_seqlens[at]) : 0);
    }
  }
  group.plan = &FindPlan(key);
  workspace_bytes_ = std::max(workspace_bytes_, group.plan->workspace);
  (backward ? backward_ : forward_).push_back(group);
}

void CudnnAttention::SetDocuments(const std::vector<int64_t>& cu_seqlens, int64_t backward_limit) {
  forward_.clear();
  backward_.clear();
  offsets_.clear();
  workspace_bytes_ = 0;
  const size_t documents = cu_seqlens.size() - 1;
  length_ = cu_seqlens[1] - cu_seqlens[0];
  // A plan for each odd length would be built again and again; offsets have bucketed sizes.
  ragged_ = length_ == 0 || length_ % 128 != 0;
  for (size_t i = 0; i < documents; ++i) ragged_ |= cu_seqlens[i + 1] - cu_seqlens[i] != length_;
  AddGroup(/*backward=*/false, cu_seqlens, 0, documents, 0, shape_.kv_heads);
  for (size_t begin = 0; backward_limit > 0 && begin < documents;) {
    // As many documents as fit the limit; the bucketed sizes count.
    int64_t longest = 1;
    size_t end = begin;
    while (end < documents) {
      const int64_t most = std::max(longest, cu_seqlens[end + 1] - cu_seqlens[end]);
      const auto count = static_cast<int64_t>(end + 1 - begin);
      const int64_t bytes = ragged_ ? BackwardBytes(PowerOfTwo(count), shape_.heads, Bucket(most))
                                    : BackwardBytes(count, shape_.heads, most);
      if (end > begin && bytes > backward_limit) break;
      longest = most;
      ++end;
    }
    const int64_t padded = ragged_ ? Bucket(longest) : longest;
    int64_t kv_heads = shape_.kv_heads;
    if (end - begin == 1) {
      const int64_t repeat = shape_.heads / shape_.kv_heads;
      while (kv_heads > 1 && (shape_.kv_heads % kv_heads != 0 ||
                              BackwardBytes(1, kv_heads * repeat, padded) > backward_limit)) {
        --kv_heads;
      }
    }
    for (int64_t head = 0; head < shape_.kv_heads; head += kv_heads) {
      AddGroup(/*backward=*/true, cu_seqlens, begin, end, head, kv_heads);
    }
    begin = end;
  }
}

void CudnnAttention::Run(const Group& group, const int32_t* offsets, const __nv_bfloat16* qkv_in,
                         __nv_bfloat16* out, float* stats, const __nv_bfloat16* d_out_in,
                         __nv_bfloat16* d_qkv, void* workspace) {
  auto* qkv = const_cast<__nv_bfloat16*>(qkv_in);
  auto* d_out = const_cast<__nv_bfloat16*>(d_out_in);
  const int64_t e = shape_.head_dim, repeat = shape_.heads / shape_.kv_heads;
  const int64_t q_at = group.first_kv_head * repeat * e,
                k_at = (shape_.heads + group.first_kv_head) * e, v_at = k_at + shape_.kv_heads * e;
  // Everything of a group counts from its first token: cuDNN's own buffers are laid out likewise.
  const int64_t token = group.first_token;
  const int64_t stats_at =
      ragged_ ? token * shape_.heads + group.first_kv_head * repeat
              : (group.first_document * shape_.heads + group.first_kv_head * repeat) * length_;
  qkv += token * shape_.qkv_stride;
  std::unordered_map<int64_t, void*> pack = {{kQ, qkv + q_at},
                                             {kK, qkv + k_at},
                                             {kV, qkv + v_at},
                                             {kOut, out + token * shape_.out_stride + q_at},
                                             {kStats, stats + stats_at}};
  if (d_qkv != nullptr) {
    d_qkv += token * shape_.d_qkv_stride;
    pack[kDOut] = d_out + token * shape_.d_out_stride + q_at;
    pack[kDQ] = d_qkv + q_at;
    pack[kDK] = d_qkv + k_at;
    pack[kDV] = d_qkv + v_at;
  }
  if (ragged_) {
    auto* at = const_cast<int32_t*>(offsets) + group.offsets_at;
    const int64_t uids[kOffsetArrays] = {kQkvOffsets,  kOutOffsets,  kStatsOffsets,
                                         kDOutOffsets, kDQkvOffsets, kLengths};
    for (int64_t uid : uids) {
      if (d_qkv != nullptr || (uid != kDOutOffsets && uid != kDQkvOffsets)) pack[uid] = at;
      at += group.offsets_span;
    }
  }
  Check(group.plan->graph.execute(static_cast<cudnnHandle_t>(handle_), pack, workspace),
        d_qkv == nullptr ? "forward" : "backward");
}

void CudnnAttention::Forward(const __nv_bfloat16* qkv, const int32_t* offsets, __nv_bfloat16* out,
                             float* stats, void* workspace, cudaStream_t stream) {
  Check(fe::detail::set_stream(static_cast<cudnnHandle_t>(handle_), stream), "stream");
  for (const Group& group : forward_) {
    Run(group, offsets, qkv, out, stats, nullptr, nullptr, workspace);
  }
}

void CudnnAttention::Backward(const __nv_bfloat16* d_out, const __nv_bfloat16* qkv,
                              const int32_t* offsets, const __nv_bfloat16* out, const float* stats,
                              __nv_bfloat16* d_qkv, void* workspace, cudaStream_t stream) {
  Check(fe::detail::set_stream(static_cast<cudnnHandle_t>(handle_), stream), "stream");
  for (const Group& group : backward_) {
    Run(group, offsets, qkv, const_cast<__nv_bfloat16*>(out), const_cast<float*>(stats), d_out,
        d_qkv, workspace);
  }
}

}  // namespace finetuned::kernels
