#include "worker/export/merge.h"

#include <ATen/Functions.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <set>
#include <sstream>

#include "proto/base/file_util.h"
#include "worker/adapters/lora.h"
#include "worker/export/peft_deltas.h"
#include "worker/models/model_summary.h"
#include "worker/models/safetensors.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;

// Taken over from the base unchanged, as far as they are there.
constexpr const char* kCopiedFiles[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "generation_config.json"};

void ThrowIfError(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

std::string DtypeName(at::ScalarType dtype) {
  if (dtype == at::kFloat) return "float32";
  if (dtype == at::kBFloat16) return "bfloat16";
  if (dtype == at::kHalf) return "float16";
  throw std::runtime_error("a merged model is written in float32, bfloat16 or float16, not in " +
                           std::string(c10::toString(dtype)));
}

// Every tensor of the merged model, computed on demand from base and adapter.
class MergedTensors {
 public:
  explicit MergedTensors(const MergeRequest& request)
      : request_(request),
        summary_(InspectModelDir(request.base_dir)),
        base_(SafetensorsModel::Open(request.base_dir)),
        deltas_(PeftDeltas::Open(request.adapter_dir)) {
    for (const LinearInfo& linear : summary_.linears) linears_.insert(linear.name);
    for (const std::string& module : deltas_.modules()) {
      if (linears_.count(module) == 0) {
        throw std::runtime_error(request.adapter_dir + ": '" + module +
                                 "' is no linear layer of the model in " + request.base_dir);
      }
    }
  }

  const ModelSummary& summary() const { return summary_; }
  const SafetensorsModel& base() const { return *base_; }
  int64_t modules() const { return static_cast<int64_t>(deltas_.modules().size()); }

  at::ScalarType Dtype(const std::string& name) const {
    const at::ScalarType dtype = base_->Entry(name).dtype;
    if (!at::isFloatingType(dtype)) return dtype;
    // fp32 among 16-bit weights is there on purpose; in an fp32 model it is just the model's dtype.
    if (dtype == at::kFloat && summary_.dtype != "float32") return dtype;
    return request_.dtype;
  }

  // As it is stored.
  at::Tensor Compute(const std::string& name) const {
    const std::string module = name.ends_with(".weight") ? name.substr(0, name.size() - 7) : "";
    if (linears_.count(module) == 0) return base_->Tensor(name).to(Dtype(name));
    return Linear(module).to(Dtype(name));
  }

  // The weight of a linear layer, fp32, or in the base's dtype where nothing is added to it.
  at::Tensor Linear(const std::string& module) const {
    at::Tensor tensor = base_->Tensor(module + ".weight");
    if (request_.dequantized_base) {
      tensor = Dequantize4Bit(Quantize4Bit(tensor.contiguous(), request_.quant_type, request_.double_quant), at::kFloat);
    }
    return deltas_.Has(module) ? deltas_.AddTo(module, tensor.to(at::kFloat)) : tensor;
  }

 private:
  const MergeRequest& request_;
  const ModelSummary summary_;
  const std::shared_ptr<SafetensorsModel> base_;
  const PeftDeltas deltas_;
  std::set<std::string> linears_;
};

void WriteConfig(const MergeRequest& request, const std::string& dir) {
  const auto text = ReadFile(request.base_dir + "/config.json");
  ThrowIfError(text.status());
  auto config = nlohmann::ordered_json::parse(*text);
  config.erase("_name_or_path");  // a path of the machine that made the base
  // transformers 5 writes "dtype", before it was "torch_dtype"; both read either.
  const char* key = config.contains("dtype") ? "dtype" : "torch_dtype";
  if (config.contains("torch_dtype")) config["torch_dtype"] = DtypeName(request.dtype);
  config[key] = DtypeName(request.dtype);
  ThrowIfError(WriteFileAtomic(dir + "/config.json", config.dump(2) + "\n"));
}

void WriteModelCard(const MergeRequest& request, const std::string& dir) {
  std::string card = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n";
  if (request.provenance.is_object() && request.provenance.contains("base_model") &&
      request.provenance["base_model"].is_string()) {
    card += "base_model: " + request.provenance["base_model"].dump() + "\n";  // quoted, as YAML is
  }
  card += "tags:\n- lora\n- merged\n---\n\n# Merged model\n\n";
  card += "A LoRA adapter merged into ";
  card += request.dequantized_base ? "the dequantized 4-bit weights of its base model"
                                   : "its base model";
  card += " (W + scaling · B · A in float32, stored as " + DtypeName(request.dtype) + ").\n";
  if (!request.provenance.is_null()) {
    card += "\n## Provenance\n\n```json\n" + request.provenance.dump(2) + "\n```\n";
  }
  ThrowIfError(WriteFileAtomic(dir + "/README.md", card));
}

MergeReport WriteWeights(const MergedTensors& merged, const std::string& dir,
                         const ExportCallbacks& callbacks) {
  MergeReport report;
  report.merged_modules = merged.modules();
  const auto total = static_cast<int64_t>(merged.base().names().size());
  nlohmann::json weight_map = nlohmann::json::object();
  for (const auto& [file, names] : merged.base().shards()) {
    std::vector<SafetensorsWriter::Declared> declared;
    for (const std::string& name : names) {
      declared.push_back({name, merged.Dtype(name), merged.base().Entry(name).shape});
    }
    SafetensorsWriter writer(dir + "/" + file, declared, {{"format", "pt"}});
    for (const std::string& name : names) {
      if (callbacks.cancelled && callbacks.cancelled()) throw ExportCancelled();
      const at::Tensor tensor = merged.Compute(name);
      if (!tensor.isfinite().all().item<bool>()) {
        throw std::runtime_error(dir + "/" + file + ": tensor '" + name +
                                 "' is not finite after merging; check the adapter, or merge in "
                                 "bfloat16 or float32 if this is float16");
      }
      writer.Write(name, tensor);
      weight_map[name] = file;
      report.bytes += tensor.nbytes();
      ++report.tensors;
      if (callbacks.progress) callbacks.progress(report.tensors, total, name);
    }
    writer.Finish();
  }
  if (merged.base().shards().size() > 1 ||
      merged.base().shards().front().first != "model.safetensors") {
    const nlohmann::json index = {{"metadata", {{"total_size", report.bytes}}},
                                  {"weight_map", weight_map}};
    ThrowIfError(WriteFileAtomic(dir + "/model.safetensors.index.json", index.dump(2) + "\n"));
  }
  return report;
}

// Logits [t, v] fp32 of each prompt, on the host.
std::vector<at::Tensor> PromptLogits(CausalLm& model,
                                     const std::vector<std::vector<int32_t>>& prompts) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> logits;
  for (const std::vector<int32_t>& prompt : prompts) {
    const auto length = static_cast<int64_t>(prompt.size());
    at::Tensor ids = at::empty({length}, at::kLong);
    for (int64_t i = 0; i < length; ++i) ids.mutable_data_ptr<int64_t>()[i] = prompt[i];
    Batch batch;
    batch.input_ids = ids.to(model.device());
    batch.position_ids = at::arange(length, at::kLong).to(model.device());
    batch.targets = at::full({length}, kIgnoreIndex, at::kLong).to(model.device());
    batch.cu_seqlens = {0, length};
    batch.max_seqlen = length;
    logits.push_back(model.Logits(model.Hidden(batch)).to(at::kCPU));
  }
  return logits;
}

double RelativeError(const at::Tensor& got, const at::Tensor& want) {
  const double norm = want.to(at::kDouble).norm().item<double>();
  const double difference = (got.to(at::kDouble) - want.to(at::kDouble)).norm().item<double>();
  return norm == 0 ? difference : difference / norm;
}

double LargestError(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& want) {
  double largest = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = RelativeError(got[i], want[i]);
    // A NaN compares false with everything and must not pass as no error.
    largest = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(largest, error);
  }
  return largest;
}

// Empty when every stored tensor is what it should be; linear layers in model order first.
std::string FirstDifference(const MergeRequest& request) {
  const MergedTensors expected(request);
  const auto stored = SafetensorsModel::Open(request.output_dir);
  std::vector<std::string> names;
  for (const LinearInfo& linear : expected.summary().linears) names.push_back(linear.name + ".weight");
  for (const std::string& name : expected.base().names()) names.push_back(name);
  for (const std::string& name : names) {
    if (!stored->Has(name)) return "'" + name + "' is missing in " + request.output_dir;
    if (!at::equal(stored->Tensor(name), expected.Compute(name))) {
      return "'" + name + "' is the first tensor that is not base + adapter";
    }
  }
  return "";
}

}  // namespace

MergeReport Merge(const MergeRequest& request, const ExportCallbacks& callbacks) {
  const at::NoGradGuard no_grad;
  const std::string output = fs::weakly_canonical(request.output_dir).string();
  if (output == fs::weakly_canonical(request.base_dir) ||
      output == fs::weakly_canonical(request.adapter_dir)) {
    throw std::runtime_error(request.output_dir +
                             ": the merged model cannot replace its own base or adapter; name "
                             "another directory");
  }
  DtypeName(request.dtype);  // refuses others before anything is written
  const MergedTensors merged(request);
  const std::string temporary = output + ".tmp." + std::to_string(getpid());
  try {
    ThrowIfError(RemoveAll(temporary));
    ThrowIfError(MakeDirectories(temporary));
    const MergeReport report = WriteWeights(merged, temporary, callbacks);
    for (const char* name : kCopiedFiles) {
      if (!fs::exists(request.base_dir + "/" + name)) continue;
      const auto contents = ReadFile(request.base_dir + "/" + name);
      ThrowIfError(contents.status());
      ThrowIfError(WriteFileAtomic(temporary + "/" + name, *contents));
    }
    WriteConfig(request, temporary);
    WriteModelCard(request, temporary);
    ThrowIfError(RemoveAll(output));
    ThrowIfError(RenameDurable(temporary, output));
    return report;
  } catch (...) {
    RemoveAll(temporary).IgnoreError();
    throw;
  }
}

MergeCheck CheckMerged(const MergeRequest& request, const std::vector<std::vector<int32_t>>& prompts,
                       const std::optional<at::Device>& device) {
  const at::NoGradGuard no_grad;
  MergeCheck check;
  check.detail = FirstDifference(request);
  check.passed = check.detail.empty();
  if (!check.passed || !device.has_value()) return check;
  LoadOptions options;
  options.device = *device;
  std::vector<at::Tensor> want;
  {
    LoadOptions base_options = options;
    base_options.load_in_4bit = request.dequantized_base;
    base_options.quant_type = request.quant_type;
    base_options.double_quant = request.double_quant;
    const auto base = LoadCausalLm(request.base_dir, base_options);
    const auto adapters = LoraAdapters::LoadPeft(*base, request.adapter_dir);
    want = PromptLogits(*base, prompts);
  }  // freed before the next model takes its place
  const double stored = LargestError(PromptLogits(*LoadCausalLm(request.output_dir, options), prompts), want);
  check.merge_error = stored;
  if (request.dtype != at::kFloat) {
    const auto merged = LoadCausalLm(request.base_dir, options);
    const MergedTensors expected(request);
    for (FusedLinear* linear : merged->linears()) {
      for (LinearPart& part : linear->parts()) part.weight.copy_(expected.Linear(part.name));
    }
    check.merge_error = LargestError(PromptLogits(*merged, prompts), want);
    check.rounding_shift = stored;
  }
  check.compared_logits = true;
  check.passed = check.merge_error <= kMergeTolerance && std::isfinite(check.rounding_shift);
  if (!check.passed) {
    std::ostringstream text;
    text.precision(2);
    text << "the logits of base + adapter, merged in fp32, differ from the unmerged ones by " << check.merge_error << " of their norm, over the "
         << kMergeTolerance << " allowed";
    check.detail = text.str();
  }
  return check;
}

}  // namespace finetuned
