#include "kernels/base/cuda_util.cuh"
#include "kernels/lora_weight/lora_weight_cuda.h"
#include "kernels/nf4/nf4_tables.cuh"

namespace finetuned::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kChunks = 4;  // 8-value chunks a thread decodes: independent loads in flight
constexpr int kBlock = 64;  // values that share a scale

// Which blocks of the launch do what: first those of each part's W, then A's rows, then sB.
struct Ranges {
  unsigned int base_end[kMaxLoraParts];
  unsigned int a_end, b_end;
  unsigned int a_blocks_a_row;
};

struct Tables {
  float map[256], values[16];
};

__device__ void FillBase(const LoraWeightPart& part, unsigned int block, unsigned int k,
                         int64_t stride, const Tables& tables, __nv_bfloat16* out) {
  const unsigned int chunks_a_row = k / kVector;
  const unsigned int chunks = static_cast<unsigned int>(part.rows) * chunks_a_row;
  const unsigned int first = block * (kThreads * kChunks) + threadIdx.x;
  out += part.first_row * stride;
  if (part.dense != nullptr) {
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      const unsigned int chunk = first + i * kThreads;
      if (chunk >= chunks) continue;
      const unsigned int row = chunk / chunks_a_row, column = chunk % chunks_a_row * kVector;
      *reinterpret_cast<uint4*>(out + row * stride + column) =
          reinterpret_cast<const uint4*>(part.dense)[chunk];
    }
    return;
  }
  uint32_t codes[kChunks];
  float scales[kChunks];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const unsigned int chunk = min(first + i * kThreads, chunks - 1);
    codes[i] = reinterpret_cast<const uint32_t*>(part.packed)[chunk];
    const unsigned int scale = chunk / (kBlock / kVector);
    if (part.nested_absmax == nullptr) {
      scales[i] = static_cast<const float*>(part.absmax)[scale];
    } else {
      const uint8_t code = static_cast<const uint8_t*>(part.absmax)[scale];
      // The product and the sum round separately, as in nf4_cuda.cu.
      scales[i] = __fadd_rn(__fmul_rn(tables.map[code], part.nested_absmax[scale / kScaleBlock]),
                            part.offset);
    }
  }
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const unsigned int chunk = first + i * kThreads;
    if (chunk >= chunks) continue;
    const unsigned int row = chunk / chunks_a_row, column = chunk % chunks_a_row * kVector;
    Float8 value;
#pragma unroll
    for (int j = 0; j < kVector / 2; ++j) {  // of each byte the high nibble comes first
      const uint32_t byte = codes[i] >> (8 * j);
      value.v[2 * j] = __fmul_rn(tables.values[byte >> 4 & 15], scales[i]);
      value.v[2 * j + 1] = __fmul_rn(tables.values[byte & 15], scales[i]);
    }
    StoreVector(out + row * stride + column, value);
  }
}

__device__ const LoraWeightPart* PartOfColumn(const LoraWeight& weight, int column) {
  for (int p = 0; p < weight.part_count; ++p) {
    const LoraWeightPart& part = weight.parts[p];
    if (column >= part.first_column && column < part.first_column + part.rank) return &part;
  }
  return nullptr;
}

__global__ void __launch_bounds__(kThreads)
    FillKernel(const __grid_constant__ LoraWeight weight, const __grid_constant__ Ranges ranges,
               bool with_adapters, __nv_bfloat16* out) {
  __shared__ Tables tables;
  const unsigned int block = blockIdx.x;
  const int last = weight.part_count - 1;
  const auto k = static_cast<unsigned int>(weight.k);
  if (block < ranges.base_end[last]) {
    tables.map[threadIdx.x] = c_map[threadIdx.x];
    if (threadIdx.x < 16) {
      tables.values[threadIdx.x] = c_values[static_cast<int>(weight.code)][threadIdx.x];
    }
    __syncthreads();  // the tables are whole before they are read
    int p = 0;
    while (block >= ranges.base_end[p]) ++p;
    FillBase(weight.parts[p], block - (p == 0 ? 0 : ranges.base_end[p - 1]), k, weight.stride,
             tables, out);
    return;
  }
  if (block < ranges.a_end) {
    const unsigned int i = block - ranges.base_end[last];
    const auto row = static_cast<int>(i / ranges.a_blocks_a_row);
    const unsigned int column = (i % ranges.a_blocks_a_row * kThreads + threadIdx.x) * kVector;
    if (column >= k) return;
    const LoraWeightPart* part = PartOfColumn(weight, row);
    Float8 value = {};
    if (part != nullptr) {
      const float* from = part->a + (row - part->first_column) * weight.k + column;
#pragma unroll
      for (int j = 0; j < kVector; ++j) value.v[j] = from[j];
    }
    StoreVector(out + (weight.n + row) * weight.stride + column, value);
    return;
  }
  // sB, one thread an element.
  const auto rt = static_cast<unsigned int>(weight.rt);
  const unsigned int i = (block - ranges.a_end) * kThreads + threadIdx.x;
  if (i >= weight.n * rt) return;
  const int64_t row = i / rt;
  const auto column = static_cast<int>(i % rt);
  const LoraWeightPart* part = PartOfColumn(weight, column);
  float value = 0;
  if (part != nullptr && with_adapters && row >= part->first_row &&
      row < part->first_row + part->rows) {
    value = part->scaling *
            part->b[(row - part->first_row) * part->rank + (column - part->first_column)];
  }
  out[row * weight.stride + k + column] = __float2bfloat16_rn(value);
}

}  // namespace

void FillLoraWeightCuda(const LoraWeight& weight, bool with_base, bool with_adapters,
                        __nv_bfloat16* out, cudaStream_t stream) {
  CheckArgument(weight.k % kVector == 0 && weight.stride % kVector == 0 && weight.part_count >= 1 &&
                    weight.part_count <= kMaxLoraParts && weight.n * weight.k < int64_t{1} << 34,
                "an extended weight has 1 to 3 parts, rows of a multiple of 8 values and at most "
                "2^34 values");
  EnsureTables();
  Ranges ranges = {};
  unsigned int end = 0;
  for (int p = 0; p < weight.part_count; ++p) {
    if (with_base)
      end += BlocksFor(weight.parts[p].rows * (weight.k / kVector), kThreads * kChunks);
    ranges.base_end[p] = end;
  }
  ranges.a_blocks_a_row = BlocksFor(weight.k, kThreads * kVector);
  ranges.a_end = end + static_cast<unsigned int>(weight.rt) * ranges.a_blocks_a_row;
  ranges.b_end = ranges.a_end + BlocksFor(weight.n * weight.rt, kThreads);
  if (ranges.b_end == 0) return;
  FillKernel<<<ranges.b_end, kThreads, 0, stream>>>(weight, ranges, with_adapters, out);
  CheckCuda(cudaGetLastError(), "extended weight");
}

}  // namespace finetuned::kernels
