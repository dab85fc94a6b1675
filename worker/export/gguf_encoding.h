// How GGUF stores numbers, equal to ggml in every bit (ggml-org/ggml: docs/gguf.md, ggml-quants.c):
//
//   F32, F16, BF16   one number each; F16 and BF16 round to nearest, ties to even
//   Q8_0             blocks of 32: fp16 scale d, then 32 int8 q, value = d · q. d = max|x| / 127
//   and q = round(x / d), half
//                    away from zero, both with the scale before its own rounding to fp16
//
// Pure functions, little-endian hosts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace finetuned {

enum class GgufType { kF32, kF16, kBf16, kQ8_0 };

// "f32", "f16", "bf16", "q8_0" in any case. INVALID_ARGUMENT lists them.
absl::StatusOr<GgufType> ParseGgufType(std::string_view name);
const char* GgufTypeName(GgufType type);  // "Q8_0"

// ggml's number of the type (enum ggml_type), and back; nullopt for types not written here.
uint32_t GgmlTypeId(GgufType type);
std::optional<GgufType> GgufTypeOfId(uint32_t ggml_type);

// Elements stored together; a row must be a multiple of them.
int64_t GgufBlockElements(GgufType type);
// REQUIRES: n % GgufBlockElements(type) == 0.
int64_t GgufBytes(GgufType type, int64_t n);

// Any float has an encoding: beyond the type's range it is infinite, NaN stays NaN (Q8_0 has no
// meaning for either). REQUIRES: n % GgufBlockElements(type) == 0; `out` has GgufBytes(type, n).
void EncodeGguf(GgufType type, const float* values, int64_t n, char* out);
void DecodeGguf(GgufType type, const char* encoded, int64_t n, float* values);

// The largest |x| whose encoding is finite. Every value of Q8_0 is meant: max|x| of a block.
float GgufLargest(GgufType type);

// First i where |decoded[i] − source[i]| is more than the type's own rounding explains, or −1. That
// is nothing for F32, half a unit in the last place for F16 and BF16, and for Q8_0 half a step of
// the block plus what rounding d to fp16 moves.
int64_t FirstBeyondRounding(GgufType type, const float* source, const float* decoded, int64_t n);

}  // namespace finetuned
