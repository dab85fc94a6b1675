// Llama 2, 3, 3.1, 3.2, 3.3 and what shares their architecture (SmolLM, SmolLM2, TinyLlama):
// RMSNorm before attention and MLP, rotary embedding by halves, grouped queries, SwiGLU. Touvron et
// al., 2023; Grattafiori et al., 2024.
#include <stdexcept>

#include "worker/models/architecture.h"

namespace finetuned {
namespace {

ModelConfig Parse(const nlohmann::json& config) {
  constexpr int64_t kMost = int64_t{1} << 24;
  ModelConfig parsed;
  parsed.raw = config;
  parsed.architecture = "LlamaForCausalLM";
  parsed.model_type = "llama";
  parsed.hidden_size = ConfigInt(config, "hidden_size", 1, kMost);
  parsed.intermediate_size = ConfigInt(config, "intermediate_size", 1, kMost);
  parsed.num_hidden_layers = ConfigInt(config, "num_hidden_layers", 1, 4096);
  parsed.num_attention_heads = ConfigInt(config, "num_attention_heads", 1, 65536);
  parsed.num_key_value_heads =
      ConfigInt(config, "num_key_value_heads", parsed.num_attention_heads, 1, 65536);
  parsed.head_dim =
      ConfigInt(config, "head_dim", parsed.hidden_size / parsed.num_attention_heads, 1, kMost);
  parsed.vocab_size = ConfigInt(config, "vocab_size", 1, kMost);
  parsed.max_position_embeddings =
      ConfigInt(config, "max_position_embeddings", 2048, 1, int64_t{1} << 40);
  parsed.rms_norm_eps = ConfigNumber(config, "rms_norm_eps", 1e-6);
  parsed.tie_word_embeddings = ConfigBool(config, "tie_word_embeddings", false);
  parsed.attention_bias = ConfigBool(config, "attention_bias", false);
  parsed.mlp_bias = ConfigBool(config, "mlp_bias", false);
  parsed.bos_token_id = ConfigInt(config, "bos_token_id", -1, -1, kMost);
  if (config.contains("eos_token_id")) {
    for (const auto& id : config["eos_token_id"].is_array()
                              ? config["eos_token_id"]
                              : nlohmann::json::array({config["eos_token_id"]})) {
      if (id.is_number_integer()) parsed.eos_token_ids.push_back(id.get<int64_t>());
    }
  }
  // Before transformers 5: rope_theta and rope_scaling; since then one block rope_parameters with
  // rope_theta inside.
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (config.contains(key) && !config[key].is_null()) parsed.rope_scaling = config[key];
  }
  parsed.rope_theta = ConfigNumber(config, "rope_theta", 10000);
  if (parsed.rope_scaling.is_object()) {
    parsed.rope_theta = ConfigNumber(parsed.rope_scaling, "rope_theta", parsed.rope_theta);
  }
  if (!(parsed.rope_theta > 1)) throw std::runtime_error("config.json: rope_theta must be over 1");

  const std::string activation = config.value("hidden_act", std::string("silu"));
  if (activation != "silu" && activation != "swish") {
    throw std::runtime_error("config.json: hidden_act '" + activation +
                             "' is not supported for llama; supported: silu");
  }
  if (parsed.num_attention_heads % parsed.num_key_value_heads != 0) {
    throw std::runtime_error(
        "config.json: num_attention_heads must be a multiple of num_key_value_heads");
  }
  if (parsed.head_dim % 2 != 0) throw std::runtime_error("config.json: head_dim must be even");
  if (config.contains("quantization_config") && !config["quantization_config"].is_null()) {
    throw std::runtime_error(
        "config.json: the model is already quantized (" +
        config["quantization_config"].value("quant_method", std::string("unknown method")) +
        "); use the original model, it is quantized while loading");
  }
  return parsed;
}

DecoderNames Names() {
  return {.embedding = "model.embed_tokens.weight",
          .final_norm = "model.norm.weight",
          .head = "lm_head.weight",
          .layer_prefix = "model.layers.",
          .attention_norm = "input_layernorm.weight",
          .mlp_norm = "post_attention_layernorm.weight",
          .qkv = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
          .gate_up = {"mlp.gate_proj", "mlp.up_proj"},
          .attention_out = "self_attn.o_proj",
          .mlp_down = "mlp.down_proj"};
}

}  // namespace

extern const Architecture kLlama;
const Architecture kLlama{.name = "LlamaForCausalLM",
                          .model_type = "llama",
                          .description = "Llama 2 and 3.x, SmolLM, SmolLM2",
                          .parse = Parse,
                          .names = Names};

}  // namespace finetuned
