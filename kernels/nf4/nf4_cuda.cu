// Products and sums that must round separately use __fmul_rn and __fadd_rn: the compiler may not
// contract them. The reciprocal of a block's absmax is the approximate one, for all blocks, as in
// bitsandbytes' kernels.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/nf4/nf4_cuda.h"
#include "kernels/nf4/nf4_tables.cuh"

namespace finetuned::kernels {
namespace {

// bitsandbytes' GPU thresholds of NF4, written in decimals: some are one unit away from the CPU's
// midpoints.
__constant__ float c_thresholds[15] = {
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f};

__device__ float Load(const float* x, int64_t i) { return x[i]; }
__device__ float Load(const __nv_bfloat16* x, int64_t i) { return __bfloat162float(x[i]); }
__device__ float Load(const __half* x, int64_t i) { return __half2float(x[i]); }
__device__ void Store(float* out, int64_t i, float value) { out[i] = value; }
__device__ void Store(__nv_bfloat16* out, int64_t i, float value) {
  out[i] = __float2bfloat16_rn(value);
}
__device__ void Store(__half* out, int64_t i, float value) { out[i] = __float2half_rn(value); }

__device__ uint8_t CodeOf(float x, int code) {
  if (code == static_cast<int>(Code4::kNf4)) {
    int index = 0;
#pragma unroll
    for (int i = 0; i < 15; ++i) index += c_thresholds[i] < x;
    return static_cast<uint8_t>(isnan(x) ? 15 : index);
  }
  // On a GPU bitsandbytes codes sign and magnitude apart. Thresholds: the largest inputs its kernel
  // codes downwards, found by bisection on an H100; they differ from the CPU's midpoints by a unit
  // here and there, and near zero in the sign.
  const float kThresholds[7] = {0x1.555572p-9f, 0x1.6p-4f,     0x1.aaaaaap-3f, 0x1.2aaaaap-2f,
                                0x1.aaaaacp-2f, 0x1.2aaaap-1f, 0x1.aaaaaap-1f};
  const int kMagnitudes =
      0x32547610;  // codes of 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1, a nibble each
  int index = 0;
#pragma unroll
  for (int i = 0; i < 7; ++i) index += fabsf(x) > kThresholds[i];
  return static_cast<uint8_t>((x < 0 ? 8 : 0) | (kMagnitudes >> (4 * index) & 15));
}

template <typename T>
__global__ void QuantizeKernel(const T* x, int64_t n, int64_t blocksize, int code, uint8_t* packed,
                               float* absmax) {
  const int lane = threadIdx.x % 32;
  const int64_t block = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x) / 32;
  const int64_t begin = block * blocksize;
  if (begin >= n) return;
  const int64_t end = begin + blocksize < n ? begin + blocksize : n;
  float largest = 0;
  bool has_nan = false;
  for (int64_t i = begin + lane; i < end; i += 32) {
    const float value = fabsf(Load(x, i));
    has_nan |= isnan(value);
    largest = fmaxf(largest, value);
  }
  for (int step = 16; step > 0; step /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  if (__any_sync(0xffffffffu, has_nan)) largest = NAN;
  const bool whole = end - begin == blocksize;
  const float divisor = largest < 1e-38f ? 1e-38f : largest, reciprocal = __fdividef(1.0f, divisor);
  if (lane == 0) absmax[block] = whole ? largest : divisor;
  for (int64_t i = begin + 2 * lane; i < end; i += 64) {
    uint8_t codes[2];
    for (int j = 0; j < 2; ++j) {
      float value = 0;
      if (i + j < end) value = __fmul_rn(Load(x, i + j), reciprocal);
      codes[j] = CodeOf(value < -1.0f ? -1.0f : value > 1.0f ? 1.0f : value, code);
    }
    packed[i / 2] = static_cast<uint8_t>(codes[0] << 4 | codes[1]);
  }
}

__global__ void QuantizeScalesKernel(const float* shifted, int64_t blocks, uint8_t* codes,
                                     float* nested_absmax) {
  __shared__ float warps[8];
  const int64_t i = blockIdx.x * kScaleBlock + threadIdx.x;
  const float value = i < blocks ? shifted[i] : 0.0f;
  float largest = fabsf(value);
  for (int step = 16; step > 0; step /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = largest;
  __syncthreads();  // all partial maxima are written before any thread reads them
  for (int warp = 0; warp < 8; ++warp) largest = fmaxf(largest, warps[warp]);
  if (threadIdx.x == 0) nested_absmax[blockIdx.x] = largest;
  if (i >= blocks) return;
  if (largest == 0.0f) {
    codes[i] = 0;
    return;
  }
  const float x = __fmul_rn(value, __fdiv_rn(1.0f, largest));
  int low = 0, high = 256;  // first map value that is not below x
  while (low < high) {
    const int middle = (low + high) / 2;
    if (c_map[middle] < x) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 256) low = 255;
  if (low > 0 && x - c_map[low - 1] <= c_map[low] - x) --low;
  codes[i] = static_cast<uint8_t>(low);
}

// One thread a byte. A byte may span two rows when columns are odd.
template <typename T>
__global__ void DequantizeKernel(const uint8_t* packed, const void* absmax,
                                 const float* nested_absmax, float offset, int64_t n,
                                 int64_t columns, int64_t out_stride, int64_t blocksize, int code,
                                 T* out) {
  const int64_t byte = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x, i = 2 * byte;
  if (i >= n) return;
  const int64_t block = i / blocksize;  // blocksize is even: both elements share it
  float scale;
  if (nested_absmax == nullptr) {
    scale = static_cast<const float*>(absmax)[block];
  } else {
    const uint8_t scale_code = static_cast<const uint8_t*>(absmax)[block];
    scale = __fadd_rn(__fmul_rn(c_map[scale_code], nested_absmax[block / kScaleBlock]), offset);
  }
  const uint8_t codes = packed[byte];
  Store(out, i / columns * out_stride + i % columns, __fmul_rn(c_values[code][codes >> 4], scale));
  if (i + 1 < n) {
    Store(out, (i + 1) / columns * out_stride + (i + 1) % columns,
          __fmul_rn(c_values[code][codes & 15], scale));
  }
}

// A launch of `threads` threads in blocks of 256.
unsigned int Grid(int64_t threads) { return static_cast<unsigned int>((threads + 255) / 256); }

template <typename Launch>
void ByType(FloatType type, const Launch& launch) {
  switch (type) {
    case FloatType::kFloat32:
      launch(float{});
      break;
    case FloatType::kBFloat16:
      launch(__nv_bfloat16{});
      break;
    case FloatType::kFloat16:
      launch(__half{});
      break;
  }
}

}  // namespace

void Quantize4BitCuda(const void* x, FloatType type, int64_t n, int64_t blocksize, Code4 code,
                      uint8_t* packed, float* absmax, cudaStream_t stream) {
  EnsureTables();
  const int64_t blocks = (n + blocksize - 1) / blocksize;
  ByType(type, [&](auto zero) {
    using T = decltype(zero);
    QuantizeKernel<T><<<Grid(blocks * 32), 256, 0, stream>>>(
        static_cast<const T*>(x), n, blocksize, static_cast<int>(code), packed, absmax);
  });
  CheckCuda(cudaGetLastError(), "4-bit quantization");
}

void QuantizeScalesCuda(const float* shifted, int64_t blocks, uint8_t* codes, float* nested_absmax,
                        cudaStream_t stream) {
  EnsureTables();
  QuantizeScalesKernel<<<Grid(blocks), kScaleBlock, 0, stream>>>(shifted, blocks, codes,
                                                                 nested_absmax);
  CheckCuda(cudaGetLastError(), "quantization of scales");
}

void Dequantize4BitCuda(const uint8_t* packed, const void* absmax, const float* nested_absmax,
                        float offset, int64_t rows, int64_t columns, int64_t out_stride,
                        int64_t blocksize, Code4 code, void* out, FloatType type,
                        cudaStream_t stream) {
  EnsureTables();
  const int64_t n = rows * columns;
  ByType(type, [&](auto zero) {
    using T = decltype(zero);
    DequantizeKernel<T><<<Grid((n + 1) / 2), 256, 0, stream>>>(
        packed, absmax, nested_absmax, offset, n, columns, out_stride, blocksize,
        static_cast<int>(code), static_cast<T*>(out));
  });
  CheckCuda(cudaGetLastError(), "4-bit dequantization");
}

}  // namespace finetuned::kernels
