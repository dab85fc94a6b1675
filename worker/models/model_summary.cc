#include "worker/models/model_summary.h"

#include <map>
#include <stdexcept>

#include "worker/models/architecture.h"
#include "worker/models/safetensors.h"
#include "worker/nn/rope.h"

namespace finetuned {
namespace {

std::string DtypeText(at::ScalarType dtype) {
  return dtype == at::kFloat      ? "float32"
         : dtype == at::kBFloat16 ? "bfloat16"
         : dtype == at::kHalf     ? "float16"
                                  : c10::toString(dtype);
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text;
  for (int64_t extent : shape) text += (text.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + text + "]";
}

}  // namespace

ModelSummary InspectModelDir(const std::string& model_dir) {
  const nlohmann::json json = ReadConfigJson(model_dir);
  const Architecture& architecture = FindArchitecture(json);
  ModelSummary summary;
  summary.config = architecture.parse(json);
  const ModelConfig& config = summary.config;
  Rope({config.head_dim, config.max_position_embeddings, config.rope_theta, config.rope_scaling});
  const auto files = SafetensorsModel::Open(model_dir);
  std::map<std::string, int64_t> elements_by_dtype;
  for (const RequiredTensor& required : RequiredTensors(config, architecture.names())) {
    if (!files->Has(required.name)) {
      throw std::runtime_error(model_dir + ": tensor '" + required.name + "' is missing");
    }
    const SafetensorsEntry& entry = files->Entry(required.name);
    if (entry.shape != required.shape) {
      throw std::runtime_error(model_dir + ": tensor '" + required.name + "' has shape " +
                               ShapeText(entry.shape) + " but config.json asks for " +
                               ShapeText(required.shape));
    }
    if (entry.dtype != at::kFloat && entry.dtype != at::kBFloat16 && entry.dtype != at::kHalf) {
      throw std::runtime_error(model_dir + ": tensor '" + required.name + "' has dtype " +
                               DtypeText(entry.dtype) +
                               "; float32, bfloat16 and float16 are supported");
    }
    int64_t elements = 1;
    for (int64_t extent : required.shape) elements *= extent;
    summary.parameters += elements;
    elements_by_dtype[DtypeText(entry.dtype)] += elements;
    switch (required.kind) {
      case RequiredTensor::Kind::kEmbedding:
      case RequiredTensor::Kind::kHead:
        summary.embedding_parameters += elements;
        break;
      case RequiredTensor::Kind::kLinear:
        summary.linear_parameters += elements;
        summary.linears.push_back(
            {required.name.substr(0, required.name.size() - std::string(".weight").size()),
             required.shape[1], required.shape[0]});
        break;
      case RequiredTensor::Kind::kNorm:
      case RequiredTensor::Kind::kBias:
        summary.other_parameters += elements;
        break;
    }
  }
  int64_t most = -1;
  for (const auto& [dtype, elements] : elements_by_dtype) {
    if (elements > most) summary.dtype = dtype;
    most = std::max(most, elements);
  }
  for (const std::string& name : files->names()) {
    summary.file_bytes += static_cast<int64_t>(files->Entry(name).end - files->Entry(name).begin);
  }
  summary.shards = static_cast<int64_t>(files->shards().size());
  return summary;
}

}  // namespace finetuned
