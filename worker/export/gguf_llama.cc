#include "worker/export/gguf_llama.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/export/gguf_tokenizer.h"
#include "worker/models/architecture.h"
#include "worker/models/model_summary.h"
#include "worker/nn/rope.h"

namespace finetuned {
namespace {

using nlohmann::json;

// 134515008 → "135M", 8030261248 → "8.0B": how GGUF files say their size.
std::string SizeLabel(int64_t parameters) {
  const std::pair<double, const char*> units[] = {{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {0, "K"}};
  for (const auto& [scale, suffix] : units) {
    if (static_cast<double>(parameters) < scale) continue;
    const double value = static_cast<double>(parameters) / (scale == 0 ? 1e3 : scale);
    char text[32];
    snprintf(text, sizeof(text), std::lround(value) >= 10 ? "%.0f%s" : "%.1f%s", value, suffix);
    return text;
  }
  return "";
}

// "license: …" in the block of settings at the head of the directory's README.md; empty when there
// is none.
std::string LicenseOfModelCard(const std::string& model_dir) {
  std::ifstream card(model_dir + "/README.md");
  std::string line;
  if (!std::getline(card, line) || line != "---") return "";
  while (std::getline(card, line) && line != "---") {
    if (line.rfind("license: ", 0) == 0) return line.substr(9);
  }
  return "";
}

GgufValue ValueOf(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  return value.dump();
}

absl::Status AddGeneralKeys(const GgufRequest& request, const ModelSummary& summary,
                            GgufKeys& keys) {
  const json& given = request.provenance;
  if (!given.is_null() && !given.is_object())
    return absl::InvalidArgumentError("provenance of a GGUF file must be a JSON object");
  // llama_ftype in llama.h.
  constexpr uint32_t kFileTypes[] = {0, 1, 32, 7};
  keys.emplace_back("general.architecture", std::string("llama"));
  keys.emplace_back("general.type", std::string("model"));
  const auto text = [&given](const char* key) {
    return given.is_object() && given.contains(key) && given[key].is_string()
               ? given[key].get<std::string>()
               : "";
  };
  std::string name = text("name");
  if (name.empty())
    name = std::filesystem::absolute(request.model_dir + "/").parent_path().filename().string();
  keys.emplace_back("general.name", name);
  for (const char* key : {"description", "author", "organization", "url"}) {
    if (const std::string value = text(key); !value.empty())
      keys.emplace_back(absl::StrCat("general.", key), value);
  }
  std::string license = text("license");
  if (license.empty()) license = LicenseOfModelCard(request.model_dir);
  if (!license.empty()) keys.emplace_back("general.license", license);
  keys.emplace_back("general.size_label", SizeLabel(summary.parameters));
  if (given.is_object() && given.contains("base_model")) {
    const json& base = given["base_model"];
    keys.emplace_back("general.base_model.count", uint32_t{1});
    if (base.is_string()) keys.emplace_back("general.base_model.0.name", base.get<std::string>());
    for (const char* key : {"name", "organization", "version", "repo_url"}) {
      if (base.is_object() && base.contains(key) && base[key].is_string())
        keys.emplace_back(absl::StrCat("general.base_model.0.", key), base[key].get<std::string>());
    }
  }
  keys.emplace_back("general.file_type", kFileTypes[static_cast<int>(request.type)]);
  keys.emplace_back("general.quantization_version", uint32_t{2});
  for (const auto& [key, value] : given.items()) {
    const bool general = key == "name" || key == "description" || key == "author" ||
                         key == "organization" || key == "url" || key == "license" ||
                         key == "base_model";
    if (!general) keys.emplace_back(absl::StrCat("finetuned.", key), ValueOf(value));
  }
  return absl::OkStatus();
}

// Rope scaling in llama.cpp's words. Llama 3's becomes a tensor of divisors, one a pair.
absl::Status AddRope(const ModelConfig& config, GgufPlan& plan) {
  plan.keys.emplace_back("llama.rope.dimension_count", static_cast<uint32_t>(config.head_dim));
  plan.keys.emplace_back("llama.rope.freq_base", static_cast<float>(config.rope_theta));
  const json& block = config.rope_scaling;
  const std::string type =
      block.is_object() ? block.value("rope_type", block.value("type", std::string("default")))
                        : "default";
  const RopeConfig rope_config{config.head_dim, config.max_position_embeddings, config.rope_theta,
                               block};
  const Rope rope(rope_config);  // checks the fields
  if (type == "linear" || type == "yarn") {
    const double original = type == "yarn" && block.contains("original_max_position_embeddings")
                                ? block["original_max_position_embeddings"].get<double>()
                                : static_cast<double>(config.max_position_embeddings);
    const double factor = block.contains("factor") && block["factor"].is_number()
                              ? block["factor"].get<double>()
                              : static_cast<double>(config.max_position_embeddings) / original;
    plan.keys.emplace_back("llama.rope.scaling.type", type);
    plan.keys.emplace_back("llama.rope.scaling.factor", static_cast<float>(factor));
    if (type == "linear") return absl::OkStatus();
    if (!block.value("truncate", true))
      return absl::UnimplementedError(
          "config.json: rope_scaling.truncate: false does not exist in llama.cpp");
    plan.keys.emplace_back("llama.rope.scaling.original_context_length",
                           static_cast<uint32_t>(original));
    for (const auto& [ours, theirs] :
         {std::pair{"beta_fast", "yarn_beta_fast"}, {"beta_slow", "yarn_beta_slow"}}) {
      if (block.contains(ours) && block[ours].is_number())
        plan.keys.emplace_back(absl::StrCat("llama.rope.scaling.", theirs),
                               block[ours].get<float>());
    }
    // llama.cpp multiplies by 1 + 0.1 ln(factor) itself; a different attention factor is said
    // relative to that.
    const double own = factor > 1 ? 1 + 0.1 * std::log(factor) : 1;
    if (std::fabs(rope.attention_factor() / own - 1) > 1e-6) {
      plan.keys.emplace_back("llama.rope.scaling.attn_factor",
                             static_cast<float>(rope.attention_factor() / own));
    }
    return absl::OkStatus();
  }
  if (type == "llama3") {
    const at::Tensor unscaled =
        Rope({config.head_dim, config.max_position_embeddings, config.rope_theta, nullptr})
            .InverseFrequencies(config.max_position_embeddings);
    const at::Tensor factors =
        (unscaled / rope.InverseFrequencies(config.max_position_embeddings)).contiguous();
    const float* begin = factors.const_data_ptr<float>();
    plan.tensors.push_back({.info = {"rope_freqs.weight", GgufType::kF32, {config.head_dim / 2}},
                            .source = "",
                            .values = {begin, begin + factors.numel()}});
  } else if (type == "dynamic") {
    plan.notes.push_back(absl::StrCat("llama.cpp has no dynamic rope scaling: it is right up to ",
                                      config.max_position_embeddings, " tokens"));
  }
  return absl::OkStatus();
}

// llama.cpp's name of a tensor of the checkpoint.
std::string GgufName(const std::string& name, const DecoderNames& names) {
  if (name == names.embedding) return "token_embd.weight";
  if (name == names.final_norm) return "output_norm.weight";
  if (name == names.head) return "output.weight";
  const std::string rest = name.substr(names.layer_prefix.size());
  const size_t dot = rest.find('.');
  const std::string part = rest.substr(dot + 1),
                    prefix = absl::StrCat("blk.", rest.substr(0, dot), ".");
  if (part == names.attention_norm) return prefix + "attn_norm.weight";
  if (part == names.mlp_norm) return prefix + "ffn_norm.weight";
  const size_t suffix = part.rfind('.');
  const std::pair<const std::string&, const char*> linears[] = {
      {names.qkv[0], "attn_q"},       {names.qkv[1], "attn_k"},
      {names.qkv[2], "attn_v"},       {names.attention_out, "attn_output"},
      {names.gate_up[0], "ffn_gate"}, {names.gate_up[1], "ffn_up"},
      {names.mlp_down, "ffn_down"}};
  for (const auto& [ours, theirs] : linears) {
    if (part.substr(0, suffix) == ours) return absl::StrCat(prefix, theirs, part.substr(suffix));
  }
  throw std::logic_error("no GGUF name for tensor " + name);
}

void AddTensors(const ModelConfig& config, const DecoderNames& names, GgufType type,
                GgufPlan& plan) {
  for (const RequiredTensor& required : RequiredTensors(config, names)) {
    PlannedTensor tensor{.info = {GgufName(required.name, names), GgufType::kF32, required.shape},
                         .source = required.name};
    if (required.shape.size() > 1) {
      tensor.info.type = type;
      if (required.shape.back() % GgufBlockElements(type) != 0) {
        tensor.info.type = GgufType::kF16;
        plan.notes.push_back(absl::StrCat(tensor.info.name, " is F16: its rows of ",
                                          required.shape.back(), " do not divide into blocks of ",
                                          GgufBlockElements(type)));
      }
    }
    if (required.name.find("." + names.qkv[0] + ".") != std::string::npos)
      tensor.interleaved_heads = config.num_attention_heads;
    if (required.name.find("." + names.qkv[1] + ".") != std::string::npos)
      tensor.interleaved_heads = config.num_key_value_heads;
    plan.tensors.push_back(std::move(tensor));
  }
}

}  // namespace

absl::StatusOr<GgufPlan> PlanGguf(const GgufRequest& request) {
  const Architecture& architecture = FindArchitecture(ReadConfigJson(request.model_dir));
  if (std::string(architecture.model_type) != "llama") {
    return absl::UnimplementedError(absl::StrCat("config.json: GGUF export of ", architecture.name,
                                                 " is not built; LlamaForCausalLM is"));
  }
  const ModelSummary summary = InspectModelDir(request.model_dir);
  const ModelConfig& config = summary.config;
  GgufPlan plan;
  plan.weights = SafetensorsModel::Open(request.model_dir);
  FT_RETURN_IF_ERROR(AddGeneralKeys(request, summary, plan.keys));
  const auto number = [&plan](const char* key, int64_t value) {
    plan.keys.emplace_back(absl::StrCat("llama.", key), static_cast<uint32_t>(value));
  };
  number("block_count", config.num_hidden_layers);
  number("context_length", config.max_position_embeddings);
  number("embedding_length", config.hidden_size);
  number("feed_forward_length", config.intermediate_size);
  number("attention.head_count", config.num_attention_heads);
  number("attention.head_count_kv", config.num_key_value_heads);
  plan.keys.emplace_back("llama.attention.layer_norm_rms_epsilon",
                         static_cast<float>(config.rms_norm_eps));
  if (config.raw.contains("head_dim") && !config.raw["head_dim"].is_null()) {
    number("attention.key_length", config.head_dim);
    number("attention.value_length", config.head_dim);
  }
  number("vocab_size", config.vocab_size);
  FT_RETURN_IF_ERROR(AddRope(config, plan));
  FT_ASSIGN_OR_RETURN(GgufTokenizer tokenizer,
                      ReadGgufTokenizer(request.model_dir, config.vocab_size));
  for (auto& key : tokenizer.keys) plan.keys.push_back(std::move(key));
  for (std::string& note : tokenizer.notes) plan.notes.push_back(std::move(note));
  AddTensors(config, architecture.names(), request.type, plan);
  return plan;
}

TensorSource::TensorSource(const GgufPlan& plan, const PlannedTensor& tensor)
    : planned_(tensor),
      tensor_(tensor.source.empty() ? at::Tensor() : plan.weights->Tensor(tensor.source)),
      rows_(tensor.info.shape[0]),
      columns_(tensor.info.elements() / rows_) {}

void TensorSource::Read(int64_t begin, int64_t end, float* out) const {
  if (planned_.source.empty()) {
    memcpy(out, planned_.values.data() + begin * columns_,
           static_cast<size_t>((end - begin) * columns_) * sizeof(float));
    return;
  }
  if (planned_.interleaved_heads == 0) {
    at::from_blob(out, {(end - begin) * columns_}, at::kFloat)
        .copy_(tensor_.view({-1}).narrow(0, begin * columns_, (end - begin) * columns_));
    return;
  }
  const int64_t head_rows = rows_ / planned_.interleaved_heads, half = head_rows / 2;
  const at::Tensor matrix = tensor_.view({rows_, columns_});
  std::vector<int64_t> from;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t head = row / head_rows, within = row % head_rows;
    from.push_back(head * head_rows + within % 2 * half + within / 2);
  }
  at::from_blob(out, {end - begin, columns_}, at::kFloat)
      .copy_(matrix.index_select(0, at::tensor(from)));
}

}  // namespace finetuned
