#include "worker/nn/rope.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace finetuned {
namespace {

double Number(const nlohmann::json& block, const char* key) {
  const auto found = block.find(key);
  if (found == block.end() || !found->is_number()) {
    throw std::runtime_error(std::string("config.json: rope_scaling.") + key +
                             " is missing or no number");
  }
  return found->get<double>();
}

double NumberOr(const nlohmann::json& block, const char* key, double otherwise) {
  const auto found = block.find(key);
  return found == block.end() || found->is_null() ? otherwise : Number(block, key);
}

// θ^(2i/e) for i in [0, e/2), in fp32 as transformers computes it.
at::Tensor Powers(double theta, int64_t head_dim) {
  const at::Tensor exponents =
      at::arange(0, head_dim, 2, at::kFloat) / static_cast<double>(head_dim);
  return at::pow(at::Scalar(theta), exponents);
}

// Grattafiori et al., "The Llama 3 herd of models", 2024: long wavelengths divided by `factor`, a
// ramp between.
at::Tensor Llama3(const at::Tensor& inverse, const nlohmann::json& block) {
  const double factor = Number(block, "factor"), low = Number(block, "low_freq_factor");
  const double high = Number(block, "high_freq_factor");
  const double context = Number(block, "original_max_position_embeddings");
  const at::Tensor wavelength = 2 * M_PI / inverse;
  const at::Tensor scaled = at::where(wavelength > context / low, inverse / factor, inverse);
  const at::Tensor smooth = (context / wavelength - low) / (high - low);
  const at::Tensor ramp = (1 - smooth) * scaled / factor + smooth * scaled;
  const at::Tensor between =
      (wavelength >= context / high).logical_and(wavelength <= context / low);
  return at::where(between, ramp, scaled);
}

// Peng et al., "YaRN", 2023.
at::Tensor Yarn(const RopeConfig& config) {
  const nlohmann::json& block = config.scaling;
  const double context = Number(block, "original_max_position_embeddings");
  const double factor =
      NumberOr(block, "factor", static_cast<double>(config.max_position_embeddings) / context);
  const double dim = static_cast<double>(config.head_dim);
  const auto dimension = [&](double rotations) {
    return dim * std::log(context / (rotations * 2 * M_PI)) / (2 * std::log(config.theta));
  };
  double low = dimension(NumberOr(block, "beta_fast", 32)),
         high = dimension(NumberOr(block, "beta_slow", 1));
  if (block.value("truncate", true)) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  const at::Tensor ramp =
      at::clamp((at::arange(config.head_dim / 2, at::kFloat) - low) / (high - low), 0, 1);
  const at::Tensor extrapolated = 1 - ramp, powers = Powers(config.theta, config.head_dim);
  return 1.0 / (factor * powers) * (1 - extrapolated) + 1.0 / powers * extrapolated;
}

double YarnAttentionFactor(const RopeConfig& config) {
  const nlohmann::json& block = config.scaling;
  const double context = Number(block, "original_max_position_embeddings");
  const double factor =
      NumberOr(block, "factor", static_cast<double>(config.max_position_embeddings) / context);
  const auto scale = [&](double m) { return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1; };
  const double given = NumberOr(block, "attention_factor", 0);
  if (given != 0) return given;
  const double m = NumberOr(block, "mscale", 0), m_all = NumberOr(block, "mscale_all_dim", 0);
  return m != 0 && m_all != 0 ? scale(m) / scale(m_all) : scale(1);
}

}  // namespace

Rope::Rope(const RopeConfig& config) : config_(config) {
  nlohmann::json& block = config_.scaling;
  if (block.is_object()) {
    type_ = block.value("rope_type", block.value("type", std::string("default")));
    // transformers: without the pretraining length, the configured one counts.
    if (!block.contains("original_max_position_embeddings")) {
      block["original_max_position_embeddings"] = config_.max_position_embeddings;
    }
  } else if (!block.is_null()) {
    throw std::runtime_error("config.json: rope_scaling is not an object");
  }
  static const char* const kTypes[] = {"default", "linear", "dynamic", "llama3", "yarn"};
  if (std::find(std::begin(kTypes), std::end(kTypes), type_) == std::end(kTypes)) {
    throw std::runtime_error(
        "config.json: rope type '" + type_ +
        "' is not supported; supported: default, linear, dynamic, llama3, yarn");
  }
  if (type_ != "default" && type_ != "yarn" && !(Number(block, "factor") >= 1)) {
    throw std::runtime_error("config.json: rope_scaling.factor must be at least 1");
  }
  if (type_ == "yarn") attention_factor_ = YarnAttentionFactor(config_);
  inverse_frequencies_ = InverseFrequencies(config_.max_position_embeddings);
}

at::Tensor Rope::InverseFrequencies(int64_t length) const {
  const nlohmann::json& block = config_.scaling;
  if (type_ == "yarn") return Yarn(config_);
  if (type_ == "dynamic") {
    const double longest = static_cast<double>(config_.max_position_embeddings);
    const double factor = Number(block, "factor"), dim = static_cast<double>(config_.head_dim);
    const double reach = std::max(static_cast<double>(length), longest);
    const double base =
        config_.theta * std::pow(factor * reach / longest - (factor - 1), dim / (dim - 2));
    return 1.0 / Powers(base, config_.head_dim);
  }
  const at::Tensor inverse = 1.0 / Powers(config_.theta, config_.head_dim);
  if (type_ == "linear") return inverse / Number(block, "factor");
  if (type_ == "llama3") return Llama3(inverse, block);
  return inverse;
}

RotaryTable Rope::Table(const at::Tensor& position_ids, int64_t max_position) const {
  const bool grown = type_ == "dynamic" && max_position + 1 > config_.max_position_embeddings;
  const at::Tensor inverse = (grown ? InverseFrequencies(max_position + 1) : inverse_frequencies_)
                                 .to(position_ids.device());
  const at::Tensor angles = position_ids.to(at::kFloat).unsqueeze(1) * inverse.unsqueeze(0);
  if (attention_factor_ == 1) return {angles.cos(), angles.sin()};
  return {angles.cos() * attention_factor_, angles.sin() * attention_factor_};
}

}  // namespace finetuned
