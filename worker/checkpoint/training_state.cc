#include <bit>

#include "absl/strings/str_cat.h"
#include "worker/checkpoint/checkpoint.h"

namespace finetuned {
namespace {

using nlohmann::json;

// JSON has no NaN or infinity, and a loss must come back to the last bit.
json Number(double value) {
  return {{"value", std::isfinite(value) ? json(value) : json(nullptr)},
          {"bits", std::bit_cast<uint64_t>(value)}};
}
double FromNumber(const json& number) {
  return std::bit_cast<double>(number.at("bits").get<uint64_t>());
}
json Series(const std::vector<std::pair<int64_t, double>>& series) {
  json out = json::array();
  for (const auto& [step, value] : series) out.push_back({{"step", step}, {"loss", Number(value)}});
  return out;
}
std::vector<std::pair<int64_t, double>> FromSeries(const json& series) {
  std::vector<std::pair<int64_t, double>> out;
  for (const json& point : series) out.emplace_back(point.at("step"), FromNumber(point.at("loss")));
  return out;
}

}  // namespace

json ToJson(const TrainingState& s) {
  return {{"step", s.step},
          {"optimizer_steps", s.optimizer_steps},
          {"skipped_updates", s.skipped_updates},
          {"consecutive_skips", s.consecutive_skips},
          {"epoch", Number(s.epoch)},
          {"loss_average", Number(s.loss_average)},
          {"final_loss", Number(s.final_loss)},
          {"trained_tokens", s.trained_tokens},
          {"total_tokens", s.total_tokens},
          {"has_best", s.has_best},
          {"best_eval_loss", Number(s.best_eval_loss)},
          {"best_step", s.best_step},
          {"evaluations_without_improvement", s.evaluations_without_improvement},
          {"patience_reference", Number(s.patience_reference)},
          {"eval_history", Series(s.eval_history)},
          {"train_history", Series(s.train_history)},
          {"stopped_early", s.stopped_early},
          {"data_sha256", s.data_sha256},
          {"tokenizer_sha256", s.tokenizer_sha256},
          {"spec_sha256", s.spec_sha256},
          {"base_checksum", s.base_checksum},
          {"seed", s.seed},
          {"probe_loss", Number(s.probe_loss)}};
}

absl::StatusOr<TrainingState> TrainingStateFromJson(const json& j) {
  TrainingState s;
  try {
    s.step = j.at("step");
    s.optimizer_steps = j.at("optimizer_steps");
    s.skipped_updates = j.at("skipped_updates");
    s.consecutive_skips = j.at("consecutive_skips");
    s.epoch = FromNumber(j.at("epoch"));
    s.loss_average = FromNumber(j.at("loss_average"));
    s.final_loss = FromNumber(j.at("final_loss"));
    s.trained_tokens = j.at("trained_tokens");
    s.total_tokens = j.at("total_tokens");
    s.has_best = j.at("has_best");
    s.best_eval_loss = FromNumber(j.at("best_eval_loss"));
    s.best_step = j.at("best_step");
    s.evaluations_without_improvement = j.at("evaluations_without_improvement");
    s.patience_reference = FromNumber(j.at("patience_reference"));
    s.eval_history = FromSeries(j.at("eval_history"));
    s.train_history = FromSeries(j.at("train_history"));
    s.stopped_early = j.at("stopped_early");
    s.data_sha256 = j.at("data_sha256");
    s.tokenizer_sha256 = j.at("tokenizer_sha256");
    s.spec_sha256 = j.at("spec_sha256");
    s.base_checksum = j.at("base_checksum");
    s.seed = j.at("seed");
    s.probe_loss = FromNumber(j.at("probe_loss"));
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("state.json: ", error.what()));
  }
  return s;
}

}  // namespace finetuned
