// A 64-bit checksum of a tensor's bytes and name, to notice change; not cryptographic.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace finetuned {

// Depends on the logical contents in row-major order, not on strides, device or threads.
uint64_t TensorChecksum(const std::string& name, const at::Tensor& tensor);

}  // namespace finetuned
