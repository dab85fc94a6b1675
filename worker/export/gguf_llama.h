// What a GGUF file of a Llama-family model holds: keys, tensors and where each tensor's numbers
// come from. Writing and checking both work through this plan.
//
// Errors: absl::Status as in gguf.h, but what the model loaders throw passes through
// (std::runtime_error).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/export/gguf.h"
#include "worker/export/gguf_file.h"
#include "worker/models/safetensors.h"

namespace finetuned {

struct PlannedTensor {
  GgufTensorInfo info;
  std::string source;  // name in the safetensors; empty: `values` instead
  std::vector<float> values;
  // Above 0: a projection of this many heads whose rotary pairs (i, i + e/2) llama.cpp wants as
  // neighbours (2i, 2i + 1).
  int64_t interleaved_heads = 0;
};

struct GgufPlan {
  GgufKeys keys;
  std::vector<PlannedTensor> tensors;
  std::vector<std::string> notes;
  std::shared_ptr<SafetensorsModel> weights;
};

// UNIMPLEMENTED for another architecture and for rope scaling that llama.cpp does not have.
absl::StatusOr<GgufPlan> PlanGguf(const GgufRequest& request);

// Reads the numbers of planned tensors as fp32, in the order of the file.
class TensorSource {
 public:
  TensorSource(const GgufPlan& plan, const PlannedTensor& tensor);
  // The tensor as a matrix; one dimension counts as one column.
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  // Rows [begin, end) into out[end − begin, columns].
  void Read(int64_t begin, int64_t end, float* out) const;

 private:
  const PlannedTensor& planned_;
  at::Tensor tensor_;
  int64_t rows_, columns_;
};

}  // namespace finetuned
