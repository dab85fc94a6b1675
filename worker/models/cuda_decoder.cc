#include "worker/models/cuda_decoder.h"

#include <ATen/Functions.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>

#include "kernels/attention/rotary_cuda.h"
#include "kernels/base/cuda_util.cuh"
#include "kernels/cross_entropy/cross_entropy_cuda.h"
#include "kernels/embedding/embedding_cuda.h"
#include "kernels/rms_norm/rms_norm_cuda.h"
#include "kernels/swiglu/swiglu_cuda.h"

namespace finetuned {
namespace {

using bf16 = __nv_bfloat16;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Rows of logits that exist at a time hold at most this many values (128 MiB).
constexpr int64_t kLogitValues = int64_t{64} << 20;
// Bounds of the attention's workspace in the backward pass. Documents are independent of each
// other, so that the grouping changes no bit.
constexpr int64_t kKeptWorkspace = int64_t{1} << 30, kRecomputedWorkspace = int64_t{256} << 20;

constexpr int64_t kWorkspaceStep = int64_t{64} << 20;

// Decoded weights stay in memory where this share of the device is still free after them.
constexpr size_t kSpareShare = 8;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

const bf16* Data(const at::Tensor& tensor) {
  return static_cast<const bf16*>(tensor.const_data_ptr());
}

bool RunsHere(const FusedLinear& linear) {
  for (const LinearPart& part : linear.parts()) {
    if (part.bias.defined() || part.in_features % 8 != 0 || part.out_features % 8 != 0)
      return false;
    if (part.lora != nullptr && part.lora->dropout > 0) return false;
  }
  return linear.parts().size() <= kernels::kMaxLoraParts;
}

// One node for the whole model: its gradients come from CudaDecoder::Backward. The decoder outlives
// the graph.
struct CudaLossFunction : torch::autograd::Function<CudaLossFunction> {
  static at::Tensor forward(AutogradContext* ctx, at::TensorList /*adapters*/, CudaDecoder* decoder,
                            const at::Tensor& loss) {
    ctx->saved_data["decoder"] = reinterpret_cast<int64_t>(decoder);
    ctx->saved_data["pass"] = decoder->pass();
    return loss.clone();
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    auto* decoder = reinterpret_cast<CudaDecoder*>(ctx->saved_data["decoder"].toInt());
    TORCH_CHECK(decoder->pass() == ctx->saved_data["pass"].toInt(),
                "the activations of this loss were overwritten by a later forward pass");
    variable_list result = decoder->Backward(grads[0]);
    result.resize(result.size() + 2);
    return result;
  }
};

}  // namespace

struct CudaDecoder::Layer {
  explicit Layer(const DecoderBlock& block)
      : qkv(*block.qkv),
        attention_out(*block.attention_out),
        gate_up(*block.gate_up),
        down(*block.mlp_down),
        norm1(Data(block.attention_norm)),
        norm2(Data(block.mlp_norm)) {}
  int64_t gradient_values() const {
    return qkv.gradient_values() + attention_out.gradient_values() + gate_up.gradient_values() +
           down.gradient_values();
  }

  std::array<CudaLinear*, 4> linears() { return {&qkv, &attention_out, &gate_up, &down}; }

  CudaLinear qkv, attention_out, gate_up, down;
  const bf16 *norm1, *norm2;
  // Activations of the batch at hand, in the arena.
  bf16 *x = nullptr, *n1 = nullptr, *qkv_rows = nullptr, *attended = nullptr, *h = nullptr,
       *n2 = nullptr;
  bf16 *gate_up_rows = nullptr, *act = nullptr;
  bf16* down_u = nullptr;  // U of the down projection where act is not kept
  float *rstd1 = nullptr, *rstd2 = nullptr, *stats = nullptr;
  bf16* next_x = nullptr;
};

// Hands out pieces of one allocation; with no base it only counts.
class CudaDecoder::Arena {
 public:
  explicit Arena(char* base) : base_(base) {}
  template <typename T>
  T* Take(int64_t count) {
    T* piece = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += RoundUp(count * static_cast<int64_t>(sizeof(T)), 512);
    most_ = std::max(most_, used_);
    return piece;
  }
  int64_t mark() const { return used_; }
  void Return(int64_t mark) { used_ = mark; }
  int64_t bytes() const { return most_; }

 private:
  char* base_;
  int64_t used_ = 0, most_ = 0;
};

bool CudaDecoder::Supports(const ModelConfig& config, const DecoderWeights& weights) {
  if (!weights.embedding.is_cuda() || weights.embedding.scalar_type() != at::kBFloat16)
    return false;
  const c10::cuda::CUDAGuard guard(weights.embedding.device());
  if (config.head_dim % 16 != 0 || config.head_dim > 128 || config.hidden_size % 8 != 0 ||
      config.hidden_size > 16384 || !kernels::CudnnAttention::Available()) {
    return false;
  }
  return std::all_of(weights.blocks.begin(), weights.blocks.end(), [](const DecoderBlock& block) {
    return RunsHere(*block.qkv) && RunsHere(*block.attention_out) && RunsHere(*block.gate_up) &&
           RunsHere(*block.mlp_down);
  });
}

CudaDecoder::CudaDecoder(const ModelConfig& config, const DecoderWeights& weights, const Rope& rope)
    : config_(config), weights_(weights), rope_(rope) {
  const c10::cuda::CUDAGuard guard(weights.embedding.device());
  for (const DecoderBlock& block : weights.blocks) {
    layers_.push_back(std::make_unique<Layer>(block));
    const Layer& layer = *layers_.back();
    const auto widen = [](int64_t& stride, int64_t columns, int64_t spare) {
      stride = std::max(stride, RoundUp(columns + spare, 64));
    };
    widen(strides_.norm1, layer.qkv.in_features(), layer.qkv.spare());
    widen(strides_.qkv, layer.qkv.out_features(), 0);
    widen(strides_.d_qkv, layer.qkv.out_features(), layer.qkv.spare());
    widen(strides_.attended, layer.attention_out.in_features(), layer.attention_out.spare());
    widen(strides_.d_out, layer.attention_out.out_features(), layer.attention_out.spare());
    widen(strides_.norm2, layer.gate_up.in_features(), layer.gate_up.spare());
    widen(strides_.gate_up, layer.gate_up.out_features(), layer.gate_up.spare());
    widen(strides_.act, layer.down.in_features(), layer.down.spare());
    widen(strides_.d_hidden, layer.down.out_features(), layer.down.spare());
    for (const FusedLinear* linear :
         {block.qkv.get(), block.attention_out.get(), block.gate_up.get(), block.mlp_down.get()}) {
      for (const LinearPart& part : linear->parts()) {
        if (part.lora != nullptr) adapters_.insert(adapters_.end(), {part.lora->a, part.lora->b});
      }
    }
  }
  attention_ = std::make_unique<kernels::CudnnAttention>(kernels::CudnnAttentionShape{
      config.num_attention_heads, config.num_key_value_heads, config.head_dim, strides_.qkv,
      strides_.attended, config.num_attention_heads * config.head_dim, strides_.d_qkv});
}

CudaDecoder::~CudaDecoder() = default;

void CudaDecoder::Place(Arena& arena) {
  const int64_t d = config_.hidden_size, h = config_.num_attention_heads, t = t_;
  const auto rows = [&](int64_t stride) { return arena.Take<bf16>(t * stride); };
  int64_t scratch = 0;
  for (const auto& layer : layers_) {
    scratch = std::max({scratch, layer->qkv.matrix_values(), layer->attention_out.matrix_values(),
                        layer->gate_up.matrix_values(), layer->down.matrix_values()});
  }
  context_.scratch = arena.Take<bf16>(scratch);
  gemm_workspace_ = arena.Take<char>(kernels::GemmCuda::kWorkspaceBytes);
  hidden_ = rows(std::max(d, h * config_.head_dim));
  d_x_ = rows(strides_.d_hidden);
  d_h_ = rows(strides_.d_out);
  final_rstd_ = arena.Take<float>(t);

  const bool all = keep_ == Keep::kAll;
  // Kept a layer, or two of each that the layers share in turn.
  bf16 *x[2], *attended[2], *hidden[2];
  if (!all) {
    for (int i = 0; i < 2; ++i) {
      x[i] = rows(d);
      attended[i] = rows(strides_.attended);
      hidden[i] = rows(d);
    }
  }
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = *layers_[i];
    layer.x = all ? rows(d) : x[i % 2];
    layer.attended = all ? rows(strides_.attended) : attended[i % 2];
    layer.h = all ? rows(d) : hidden[i % 2];
    layer.next_x = all ? nullptr : x[(i + 1) % 2];
    if (all && i > 0) layers_[i - 1]->next_x = layer.x;
    layer.rstd1 = arena.Take<float>(t);
    layer.rstd2 = arena.Take<float>(t);
    layer.stats = arena.Take<float>(h * t);
    if (all) {
      layer.n1 = rows(strides_.norm1);
      layer.qkv_rows = rows(strides_.qkv);
      layer.n2 = rows(strides_.norm2);
      layer.gate_up_rows = rows(strides_.gate_up);
      layer.act = rows(strides_.act);
    } else {
      layer.down_u = arena.Take<bf16>(t * layer.down.spare());
    }
  }
  if (all) layers_.back()->next_x = rows(d);
  last_x_ = layers_.back()->next_x;

  // What is alive for one part of a layer only: MLP, attention and the head take turns.
  const int64_t turn = arena.mark();
  bf16 *n = nullptr, *wide = nullptr;
  if (!all) {
    n = rows(strides_.norm2);
    wide = rows(strides_.gate_up);
  }
  d_act_ = rows(strides_.act);
  for (const auto& layer : layers_) {
    if (all) break;
    layer->n2 = n;
    layer->gate_up_rows = wide;
    layer->act = d_act_;
  }
  arena.Return(turn);
  if (!all) {
    n = rows(strides_.norm1);
    wide = rows(strides_.qkv);
  }
  for (const auto& layer : layers_) {
    if (all) break;
    layer->n1 = n;
    layer->qkv_rows = wide;
  }
  d_qkv_ = rows(strides_.d_qkv);
  // In coarse steps: documents of other lengths need not move the arena.
  attention_workspace_ = arena.Take<char>(
      RoundUp(std::max<int64_t>(attention_->workspace_bytes(), 1), kWorkspaceStep));
  arena.Return(turn);
  logits_ = arena.Take<bf16>(logit_rows_ * logit_stride_);
}

void CudaDecoder::Begin(const Batch& batch, Keep keep) {
  t_ = batch.input_ids.numel();
  TORCH_CHECK(batch.cu_seqlens.size() >= 2 && batch.cu_seqlens.back() == t_,
              "cu_seqlens must end at the number of tokens, ", t_);
  ++pass_;
  keep_ = keep;
  context_.stream = c10::cuda::getCurrentCUDAStream();
  context_.loaded = nullptr;
  context_.pass = pass_;
  const auto options = batch.input_ids.options();
  attention_->SetDocuments(batch.cu_seqlens, keep == Keep::kNothing ? 0
                                             : keep == Keep::kAll   ? kKeptWorkspace
                                                                    : kRecomputedWorkspace);
  const std::vector<int32_t>& offsets = attention_->offsets();
  offsets_at_ = nullptr;
  if (!offsets.empty()) {
    offsets_ = at::from_blob(const_cast<int32_t*>(offsets.data()),
                             {static_cast<int64_t>(offsets.size())}, at::kInt)
                   .to(options.device());
    offsets_at_ = offsets_.const_data_ptr<int32_t>();
  }
  table_ = rope_.Table(batch.position_ids, batch.max_seqlen - 1);
  table_.cos = table_.cos.contiguous();
  table_.sin = table_.sin.contiguous();
  losses_ = at::empty({t_}, options.dtype(at::kFloat));
  logit_stride_ = RoundUp(config_.vocab_size, 64);
  logit_rows_ = std::clamp<int64_t>(kLogitValues / logit_stride_, 1, t_);

  Arena measured(nullptr);
  Place(measured);
  if (!arena_.defined() || arena_.numel() < measured.bytes()) {
    KeepWeights(false);
    arena_.reset();
    // Rare (the largest batch usually comes first), and the old arena is too large to leave in the
    // cache.
    c10::cuda::CUDACachingAllocator::emptyCache();
    arena_ = at::empty({measured.bytes()}, options.dtype(at::kByte));
  }
  Arena arena(static_cast<char*>(arena_.mutable_data_ptr()));
  Place(arena);
  context_.gemm.set_workspace(gemm_workspace_);

  if (keep == Keep::kAll && !weights_memory_.defined()) KeepWeights(true);
  if (keep != Keep::kOnHost) return;
  const auto layers = static_cast<int64_t>(layers_.size());
  const auto begin = [&](std::unique_ptr<HostRing>& ring, int64_t count, int64_t stride, void* even,
                         void* odd) {
    if (ring == nullptr) ring = std::make_unique<HostRing>();
    ring->Begin(count, t_ * stride * static_cast<int64_t>(sizeof(bf16)), even, odd, layers - 1,
                context_.stream);
  };
  const Layer &even = *layers_[0], &odd = *layers_[layers > 1 ? 1 : 0];
  begin(x_ring_, layers + 1, config_.hidden_size, even.x, even.next_x);
  begin(h_ring_, layers, config_.hidden_size, even.h, odd.h);
  begin(attended_ring_, layers, strides_.attended, even.attended, odd.attended);
}

void CudaDecoder::KeepWeights(bool wanted) {
  int64_t values = 0;
  if (wanted) {
    for (const auto& layer : layers_) {
      for (const CudaLinear* linear : layer->linears())
        values += RoundUp(linear->matrix_values(), 256);
    }
    size_t free = 0, total = 0;
    kernels::CheckCuda(cudaMemGetInfo(&free, &total), "free memory");
    if (values * static_cast<int64_t>(sizeof(bf16)) >
        static_cast<int64_t>(free) - static_cast<int64_t>(total / kSpareShare))
      return;
    weights_memory_ = at::empty({values}, weights_.embedding.options());
  } else {
    weights_memory_.reset();
  }
  auto* at = wanted ? static_cast<bf16*>(weights_memory_.mutable_data_ptr()) : nullptr;
  for (const auto& layer : layers_) {
    for (CudaLinear* linear : layer->linears()) {
      linear->SetMemory(at);
      if (wanted) at += RoundUp(linear->matrix_values(), 256);
    }
  }
}

void CudaDecoder::AttentionIn(Layer& layer) {
  kernels::RmsNormForwardCuda(layer.x, layer.norm1, static_cast<float>(config_.rms_norm_eps), t_,
                              config_.hidden_size, strides_.norm1, layer.n1, layer.rstd1,
                              context_.stream);
  layer.qkv.Forward(context_, layer.n1, strides_.norm1, t_, layer.qkv_rows, strides_.qkv, nullptr);
  kernels::RotateInPlaceCuda(
      layer.qkv_rows, strides_.qkv, t_, config_.num_attention_heads + config_.num_key_value_heads,
      config_.head_dim, table_.cos.const_data_ptr<float>(), table_.sin.const_data_ptr<float>(),
      /*inverse=*/false, context_.stream);
}

void CudaDecoder::AttentionOut(Layer& layer) {
  attention_->Forward(layer.qkv_rows, offsets_at_, layer.attended, layer.stats,
                      attention_workspace_, context_.stream);
  layer.attention_out.Forward(context_, layer.attended, strides_.attended, t_, layer.h,
                              config_.hidden_size, layer.x);
}

void CudaDecoder::MlpIn(Layer& layer) {
  kernels::RmsNormForwardCuda(layer.h, layer.norm2, static_cast<float>(config_.rms_norm_eps), t_,
                              config_.hidden_size, strides_.norm2, layer.n2, layer.rstd2,
                              context_.stream);
  layer.gate_up.Forward(context_, layer.n2, strides_.norm2, t_, layer.gate_up_rows,
                        strides_.gate_up, nullptr);
}

void CudaDecoder::Forward(const Batch& batch) {
  const bool offload = keep_ == Keep::kOnHost;
  const int64_t f = config_.intermediate_size;
  if (offload) x_ring_->Room(0);
  kernels::EmbeddingCuda(batch.input_ids.contiguous().const_data_ptr<int64_t>(),
                         Data(weights_.embedding), config_.vocab_size, t_, config_.hidden_size,
                         layers_[0]->x, config_.hidden_size, context_.stream);
  if (offload) x_ring_->Written(0);
  for (size_t i = 0; i < layers_.size(); ++i) {
    Layer& layer = *layers_[i];
    const auto at = static_cast<int64_t>(i);
    AttentionIn(layer);
    if (offload) {
      attended_ring_->Room(at);
      h_ring_->Room(at);
    }
    AttentionOut(layer);
    if (offload) {
      attended_ring_->Written(at);
      h_ring_->Written(at);
    }
    MlpIn(layer);
    kernels::SwiGluForwardCuda(layer.gate_up_rows, strides_.gate_up, t_, f, layer.act, strides_.act,
                               context_.stream);
    if (offload) x_ring_->Room(at + 1);
    layer.down.Forward(context_, layer.act, strides_.act, t_, layer.next_x, config_.hidden_size,
                       layer.h);
    if (!offload) continue;
    x_ring_->Written(at + 1);
    if (const size_t width = static_cast<size_t>(layer.down.spare()) * sizeof(bf16); width > 0) {
      kernels::CheckCuda(
          cudaMemcpy2DAsync(layer.down_u, width, layer.act + f,
                            static_cast<size_t>(strides_.act) * sizeof(bf16), width,
                            static_cast<size_t>(t_), cudaMemcpyDeviceToDevice, context_.stream),
          "keeping U");
    }
  }
}

at::Tensor CudaDecoder::Head(const Batch& batch, bool gradient) {
  const int64_t d = config_.hidden_size, v = config_.vocab_size;
  kernels::RmsNormForwardCuda(last_x_, Data(weights_.final_norm),
                              static_cast<float>(config_.rms_norm_eps), t_, d, d, hidden_,
                              final_rstd_, context_.stream);
  // Where few positions are trained, only those are projected.
  const bool gather = batch.target_count < t_ - t_ / 8;
  const auto options = weights_.embedding.options();
  at::Tensor all = at::from_blob(hidden_, {t_, d}, options), at, rows = all,
             targets = batch.targets;
  if (gather) {
    at = at::nonzero_static(batch.targets.ne(kIgnoreIndex), batch.target_count).squeeze(1);
    rows = all.index_select(0, at);
    targets = batch.targets.index_select(0, at);
  }
  targets = targets.contiguous();
  const int64_t count = rows.size(0);
  at::Tensor losses = losses_.narrow(0, 0, count);
  auto* hidden = static_cast<bf16*>(rows.mutable_data_ptr());
  auto* head = const_cast<bf16*>(Data(weights_.head));
  for (int64_t first = 0; first < count; first += logit_rows_) {
    const int64_t n = std::min(logit_rows_, count - first);
    const kernels::GemmMatrix chunk = {hidden + first * d, n, d, d}, weight = {head, v, d, d},
                              logits = {logits_, n, v, logit_stride_};
    context_.gemm.Multiply(chunk, weight, logits, nullptr, {.transpose_b = true}, context_.stream);
    kernels::CrossEntropyCuda(logits_, logit_stride_, targets.const_data_ptr<int64_t>() + first, n,
                              v, gradient, losses.mutable_data_ptr<float>() + first,
                              context_.stream);
    if (gradient) context_.gemm.Multiply(logits, weight, chunk, nullptr, {}, context_.stream);
  }
  if (!gather) return losses;
  if (gradient) all.zero_().index_copy_(0, at, rows);
  return at::zeros({t_}, losses.options()).index_copy_(0, at, losses);
}

at::Tensor CudaDecoder::LossSum(const Batch& batch, bool recompute) {
  const c10::cuda::CUDAGuard guard(weights_.embedding.device());
  at::Tensor loss;
  {
    const at::NoGradGuard no_grad;
    Begin(batch, recompute ? Keep::kOnHost : Keep::kAll);
    Forward(batch);
    loss = Head(batch, /*gradient=*/true).sum();
  }
  return CudaLossFunction::apply(at::TensorList(adapters_), this, loss);
}

at::Tensor CudaDecoder::TokenLosses(const Batch& batch) {
  const c10::cuda::CUDAGuard guard(weights_.embedding.device());
  const at::NoGradGuard no_grad;
  Begin(batch, Keep::kNothing);
  Forward(batch);
  return Head(batch, /*gradient=*/false).clone();
}

void CudaDecoder::LayerBackward(size_t index, float* gradients) {
  Layer& layer = *layers_[index];
  const bool again = keep_ == Keep::kOnHost;
  const int64_t d = config_.hidden_size, f = config_.intermediate_size;
  const int64_t heads = config_.num_attention_heads, e = config_.head_dim;
  const auto at = static_cast<int64_t>(index);
  float* const of_qkv = gradients;
  float* const of_out = of_qkv + layer.qkv.gradient_values();
  float* const of_gate_up = of_out + layer.attention_out.gradient_values();
  float* const of_down = of_gate_up + layer.gate_up.gradient_values();
  if (again) {
    for (HostRing* ring : {x_ring_.get(), h_ring_.get(), attended_ring_.get()}) {
      ring->Need(at);
      ring->Fetch(at - 1);
    }
  }

  // MLP. The down projection comes first: so each weight is decoded once, or twice where its output
  // is computed again.
  layer.down.InputGradient(context_, d_x_, strides_.d_hidden, t_, d_act_, strides_.act);
  if (again) MlpIn(layer);
  kernels::SwiGluBackwardCuda(layer.gate_up_rows, strides_.gate_up, t_, f, d_act_, strides_.act,
                              again, context_.stream);
  if (const size_t width = static_cast<size_t>(layer.down.spare()) * sizeof(bf16);
      again && width > 0) {
    kernels::CheckCuda(
        cudaMemcpy2DAsync(d_act_ + f, static_cast<size_t>(strides_.act) * sizeof(bf16),
                          layer.down_u, width, width, static_cast<size_t>(t_),
                          cudaMemcpyDeviceToDevice, context_.stream),
        "bringing back U");
  }
  layer.down.AdapterGradients(context_, d_x_, strides_.d_hidden, again ? d_act_ : layer.act,
                              strides_.act, t_, of_down);
  layer.gate_up.InputGradient(context_, layer.gate_up_rows, strides_.gate_up, t_, hidden_, d);
  layer.gate_up.AdapterGradients(context_, layer.gate_up_rows, strides_.gate_up, layer.n2,
                                 strides_.norm2, t_, of_gate_up);
  kernels::RmsNormBackwardCuda(hidden_, layer.h, layer.norm2, layer.rstd2, d_x_, strides_.d_hidden,
                               nullptr, t_, d, strides_.d_out, d_h_, context_.stream);

  // Attention.
  layer.attention_out.InputGradient(context_, d_h_, strides_.d_out, t_, hidden_, heads * e);
  layer.attention_out.AdapterGradients(context_, d_h_, strides_.d_out, layer.attended,
                                       strides_.attended, t_, of_out);
  if (again) AttentionIn(layer);
  attention_->Backward(hidden_, layer.qkv_rows, offsets_at_, layer.attended, layer.stats, d_qkv_,
                       attention_workspace_, context_.stream);
  kernels::RotateInPlaceCuda(d_qkv_, strides_.d_qkv, t_, heads + config_.num_key_value_heads, e,
                             table_.cos.const_data_ptr<float>(), table_.sin.const_data_ptr<float>(),
                             /*inverse=*/true, context_.stream);
  // Nothing below the first layer is trained.
  layer.qkv.InputGradient(context_, d_qkv_, strides_.d_qkv, t_, index == 0 ? nullptr : hidden_, d);
  layer.qkv.AdapterGradients(context_, d_qkv_, strides_.d_qkv, layer.n1, strides_.norm1, t_,
                             of_qkv);
  if (index == 0) return;
  kernels::RmsNormBackwardCuda(hidden_, layer.x, layer.norm1, layer.rstd1, d_h_, strides_.d_out,
                               nullptr, t_, d, strides_.d_hidden, d_x_, context_.stream);
}

std::vector<at::Tensor> CudaDecoder::Backward(const at::Tensor& d_loss) {
  const c10::cuda::CUDAGuard guard(weights_.embedding.device());
  const at::NoGradGuard no_grad;
  ++pass_;  // the activations are consumed
  int64_t values = 0;
  for (const auto& layer : layers_) values += layer->gradient_values();
  const at::Tensor scale = d_loss.to(at::kFloat).contiguous();
  const at::Tensor flat = at::empty({values}, losses_.options());
  kernels::RmsNormBackwardCuda(hidden_, last_x_, Data(weights_.final_norm), final_rstd_, nullptr, 0,
                               scale.const_data_ptr<float>(), t_, config_.hidden_size,
                               strides_.d_hidden, d_x_, context_.stream);
  int64_t at = values;
  for (size_t i = layers_.size(); i-- > 0;) {
    at -= layers_[i]->gradient_values();
    LayerBackward(i, flat.mutable_data_ptr<float>() + at);
  }
  std::vector<at::Tensor> gradients;
  for (const auto& layer : layers_) {
    for (const CudaLinear* linear :
         {&layer->qkv, &layer->attention_out, &layer->gate_up, &layer->down}) {
      linear->AppendGradientViews(flat, at, gradients);
      at += linear->gradient_values();
    }
  }
  return gradients;
}

}  // namespace finetuned
