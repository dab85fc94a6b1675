#include "worker/training/trainer.h"

#include <ATen/Context.h>
#include <ATen/ops/_foreach_mul.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <deque>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/base/file_util.h"
#include "worker/evaluation/batch_builder.h"
#include "worker/evaluation/loss.h"
#include "worker/evaluation/verdict.h"
#include "worker/monitor/memory.h"
#include "worker/training/adamw.h"
#include "worker/training/run_plan.h"
#include "worker/training/schedule.h"

namespace finetuned {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr int kLogEveryStepUntil = 100;
constexpr int kHistory = 20;              // losses and norms kept for a failure's report
constexpr int64_t kMaxConsecutiveSkips = 3;
constexpr int kMaxFailedSaves = 3;
constexpr double kLossAverageDecay = 0.9;
// save_steps: auto. At most this much lost work, at most 1 % of the time, and no more often than makes sense.
constexpr double kMaxLostSeconds = 600, kSaveCostRatio = 100, kMinSaveIntervalSeconds = 30;
// A probe that is off by more than this share is another model, data or adapter, not another device.
constexpr double kProbeTolerance = 1e-3;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

// splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): spreads (seed, step, index)
// over all 64 bits.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

class TrainingRun {
 public:
  TrainingRun(const TrainInputs& in, const TrainObserver& observer);
  TrainResult Run();

 private:
  struct StepOutcome {
    double loss = 0, grad_norm = 0;
    int64_t targets = 0, tokens = 0, samples = 0;
    bool skipped = false;
    double data_seconds = 0;
  };

  void Preflight();
  bool Resume();
  StepOutcome Step(const RunPlan::Window& window);
  void CheckAfterFirstUpdate();
  void Report(const StepOutcome& outcome, double seconds);
  void Evaluate();
  void Save(const std::string& reason, bool is_best);
  bool TimeToSave(int64_t step) const;
  double ProbeLoss();
  void LoadBest();
  void Skip(const RunPlan::Window& window, double loss, double grad_norm);
  [[noreturn]] void Fail(v1::FailureReason reason, const std::string& message, const RunPlan::Window* window,
                         std::vector<std::string> suggestions);
  void Adopt(const CheckpointContents& contents);
  CheckpointContents Contents();
  std::vector<std::string> SampleIds(const RunPlan::Window& window) const;

  const TrainInputs& in_;
  const TrainObserver& observer_;
  const v1::JobSpec& spec_;
  CausalLm& model_;
  const TokenStore& train_;
  RunPlan plan_;
  Schedule schedule_;
  AdamW optimizer_;
  TrainingState state_;
  double flops_per_token_ = 0;
  std::deque<double> last_losses_, last_norms_;
  std::vector<v1::TrainingMetrics> pending_;  // steps not yet told
  SteadyClock::time_point last_save_ = SteadyClock::now();
  std::atomic<double> save_seconds_{0};
  std::atomic<int> failed_saves_{0};
  std::atomic<bool> disk_full_{false};
  SteadyClock::time_point epoch_start_ = SteadyClock::now();
  double epoch_loss_sum_ = 0;
  int64_t epoch_tokens_ = 0;
  bool stop_for_patience_ = false;
  double seconds_per_step_ = 0;  // moving average, for the ETA
  CheckpointStore checkpoints_;  // last: its writer uses what stands above
};

std::vector<at::Tensor> Tensors(const LoraAdapters& adapters) {
  std::vector<at::Tensor> tensors;
  for (const AdapterParameter& parameter : adapters.parameters()) tensors.push_back(parameter.tensor);
  return tensors;
}

TrainingRun::TrainingRun(const TrainInputs& in, const TrainObserver& observer)
    : in_(in),
      observer_(observer),
      spec_(in.spec),
      model_(*in.model),
      train_(*in.data->train),
      plan_(in.spec, SampleLengths(*in.data->train),
            EvaluationTokens(*in.data->validation, in.spec.evaluation().max_eval_samples())),
      schedule_(MakeSchedule(in.spec, plan_.total_steps())),
      optimizer_(Tensors(*in.adapters),
                 {in.spec.adam_beta1(), in.spec.adam_beta2(), in.spec.adam_epsilon(), in.spec.weight_decay()}),
      checkpoints_(in.checkpoint_dir, in.spec.save_total_limit(), observer.log) {
  state_.data_sha256 = in.data->content_sha256;
  state_.tokenizer_sha256 = in.tokenizer_sha256;
  state_.spec_sha256 = in.spec_sha256;
  state_.base_checksum = model_.FrozenChecksum();
  state_.seed = spec_.seed();
  // Forward 2 flops a weight, backward 2 more for dX (frozen weights have no dW).
  double weights = static_cast<double>(model_.config().hidden_size * model_.config().vocab_size);
  for (const FusedLinear* linear : model_.linears()) {
    for (const LinearPart& part : linear->parts()) {
      weights += static_cast<double>(part.in_features * part.out_features);
    }
  }
  flops_per_token_ = 4 * weights;
}

TrainResult TrainingRun::Run() {
  const bool resumed = Resume();
  if (!resumed) Preflight();
  observer_.memory(TakeMemorySnapshot(resumed ? "resumed" : "preflight", model_.device()));

  bool first_update_checked = state_.optimizer_steps > 1;
  TrainResult result;
  result.total_steps = plan_.total_steps();
  epoch_start_ = SteadyClock::now();
  stop_for_patience_ = state_.stopped_early;
  while (state_.step < plan_.total_steps() && !stop_for_patience_) {
    const auto start = SteadyClock::now();
    const RunPlan::Window window = plan_.At(state_.step);
    const int64_t updates_before = state_.optimizer_steps;
    const StepOutcome outcome = Step(window);
    if (observer_.stop_requested() == StopRequest::kCancel) {
      checkpoints_.Wait().IgnoreError();
      result.outcome = TrainOutcome::kCancelled;
      result.state = state_;
      return result;
    }
    if (!first_update_checked && state_.optimizer_steps > updates_before && schedule_.At(updates_before) > 0) {
      CheckAfterFirstUpdate();
      first_update_checked = true;
      observer_.memory(TakeMemorySnapshot("first_step", model_.device()));
    }
    Report(outcome, SecondsSince(start));

    const bool last = state_.step == plan_.total_steps();
    bool saved = false;
    if (plan_.EvaluatesAt(state_.step) && in_.data->validation->size() > 0) {
      const int64_t best_before = state_.has_best ? state_.best_step : -1;
      Evaluate();
      if (state_.has_best && state_.best_step != best_before && !last) {
        Save("best", true);
        saved = true;
      }
    }
    if (plan_.EndsEpoch(state_.step)) {
      v1::EpochSummary summary;
      summary.set_epoch(window.epoch + 1);
      summary.set_train_loss(epoch_tokens_ > 0 ? epoch_loss_sum_ / static_cast<double>(epoch_tokens_) : 0);
      summary.set_trained_tokens(epoch_tokens_);
      summary.set_seconds(SecondsSince(epoch_start_));
      observer_.epoch(summary);
      epoch_start_ = SteadyClock::now();
      epoch_loss_sum_ = 0;
      epoch_tokens_ = 0;
    }
    const StopRequest stop = observer_.stop_requested();
    if (!last && !stop_for_patience_ && stop != StopRequest::kNone) {
      if (!saved) Save(stop == StopRequest::kPause ? "pause" : "timeout", false);
      if (absl::Status status = checkpoints_.Wait(); !status.ok()) {
        Fail(IsDiskFull(status) ? v1::DISK_FULL : v1::INTERNAL,
             absl::StrCat("the checkpoint before stopping could not be written: ", std::string(status.message())), nullptr, {});
      }
      result.outcome = stop == StopRequest::kPause ? TrainOutcome::kPaused : TrainOutcome::kTimeout;
      result.state = state_;
      return result;
    }
    if (!last && !saved && TimeToSave(state_.step)) Save("interval", false);
  }
  state_.stopped_early = stop_for_patience_;
  observer_.memory(TakeMemorySnapshot("training_peak", model_.device()));
  Save("end", state_.has_best && state_.best_step == state_.step);
  if (absl::Status status = checkpoints_.Wait(); !status.ok()) {
    Fail(IsDiskFull(status) ? v1::DISK_FULL : v1::INTERNAL,
         absl::StrCat("the last checkpoint could not be written: ", std::string(status.message())), nullptr, {});
  }
  if (spec_.load_best_model_at_end() && state_.has_best && state_.best_step != state_.step) LoadBest();
  result.state = state_;
  return result;
}

// The largest micro-batch the run will see, forward and backward, undone: what does not fit or is not finite ends the job
// in its first minute.
void TrainingRun::Preflight() {
  const MicroBatch* largest = nullptr;
  int64_t most = -1;
  for (int64_t step = 0; step < plan_.steps_in_epoch(0) && step < plan_.total_steps(); ++step) {
    for (const MicroBatch& micro_batch : plan_.At(step).micro_batches) {
      int64_t tokens = 0;
      for (const auto& row : micro_batch.rows) {
        for (uint32_t index : row) tokens += static_cast<int64_t>(train_.Sample(index).input_ids.size());
      }
      if (tokens > most) {
        most = tokens;
        largest = &micro_batch;
      }
    }
  }
  const Batch batch = BuildBatch(train_, *largest, Targets::kTrained, model_.device());
  at::manual_seed(Mix(spec_.seed()));
  const at::Tensor loss = model_.LossSum(batch);
  (loss / static_cast<double>(std::max<int64_t>(1, batch.target_count))).backward();
  const double value = loss.item<double>() / static_cast<double>(std::max<int64_t>(1, batch.target_count));
  const double norm = GlobalGradNorm(optimizer_.Gradients()).item<double>();
  optimizer_.ZeroGrad();
  observer_.log(v1::INFO, absl::StrFormat("preflight: largest micro-batch has %d tokens in %d documents, loss %.4f, gradient norm %.4f",
                                          most, batch.cu_seqlens.size() - 1, value, norm));
  if (!std::isfinite(value) || !std::isfinite(norm)) {
    Fail(v1::NAN_LOSS, absl::StrFormat("preflight: loss %g and gradient norm %g before any update; the base model or its "
                                       "quantization gives non-finite values on this data", value, norm),
         nullptr, {"bf16=true", "quantization.load_in_4bit=false"});
  }
}

TrainingRun::StepOutcome TrainingRun::Step(const RunPlan::Window& window) {
  StepOutcome outcome;
  for (const MicroBatch& micro_batch : window.micro_batches) outcome.targets += CountTargets(train_, micro_batch);
  const double n = static_cast<double>(std::max<int64_t>(1, outcome.targets));

  at::Tensor loss_sum;
  for (size_t i = 0; i < window.micro_batches.size(); ++i) {
    const auto data_start = SteadyClock::now();
    const Batch batch = BuildBatch(train_, window.micro_batches[i], Targets::kTrained, model_.device());
    outcome.data_seconds += SecondsSince(data_start);
    outcome.tokens += batch.input_ids.size(0);
    outcome.samples += static_cast<int64_t>(batch.cu_seqlens.size()) - 1;
    at::manual_seed(Mix(spec_.seed() ^ Mix(static_cast<uint64_t>(state_.step) << 16 | i)));
    const at::Tensor loss = model_.LossSum(batch);
    (loss / n).backward();
    loss_sum = loss_sum.defined() ? loss_sum + loss.detach() : loss.detach();
    if (observer_.stop_requested() == StopRequest::kCancel) {
      optimizer_.ZeroGrad();
      return outcome;
    }
  }
  const std::vector<at::Tensor> gradients = optimizer_.Gradients();
  const at::Tensor norm = GlobalGradNorm(gradients);
  outcome.loss = loss_sum.item<double>() / n;
  outcome.grad_norm = norm.item<double>();

  ++state_.step;
  state_.epoch = plan_.EpochAt(state_.step);
  state_.trained_tokens += outcome.targets;
  state_.total_tokens += outcome.tokens;
  last_losses_.push_back(outcome.loss);
  last_norms_.push_back(outcome.grad_norm);
  if (last_losses_.size() > kHistory) last_losses_.pop_front();
  if (last_norms_.size() > kHistory) last_norms_.pop_front();

  if (!std::isfinite(outcome.loss) || !std::isfinite(outcome.grad_norm)) {
    outcome.skipped = true;
    optimizer_.ZeroGrad();
    Skip(window, outcome.loss, outcome.grad_norm);
    return outcome;
  }
  state_.consecutive_skips = 0;
  if (spec_.max_grad_norm() > 0) {
    // As torch.nn.utils.clip_grad_norm_, whose 1e-6 keeps the quotient finite at a zero norm.
    const double coefficient = spec_.max_grad_norm() / (outcome.grad_norm + 1e-6);
    if (coefficient < 1) at::_foreach_mul_(gradients, coefficient);
  }
  optimizer_.Step(schedule_.At(state_.optimizer_steps));
  optimizer_.ZeroGrad();
  ++state_.optimizer_steps;
  state_.final_loss = outcome.loss;
  state_.loss_average = state_.optimizer_steps == 1
                            ? outcome.loss
                            : kLossAverageDecay * state_.loss_average + (1 - kLossAverageDecay) * outcome.loss;
  epoch_loss_sum_ += outcome.loss * n;
  epoch_tokens_ += outcome.targets;
  return outcome;
}

void TrainingRun::Skip(const RunPlan::Window& window, double loss, double grad_norm) {
  ++state_.skipped_updates;
  ++state_.consecutive_skips;
  v1::Intervention intervention;
  intervention.set_kind("skipped_update");
  intervention.set_step(state_.step);
  intervention.set_text(absl::StrFormat("update %d skipped: loss %g, gradient norm %g; weights, optimizer state and "
                                        "schedule are as before", state_.step, loss, grad_norm));
  for (const std::string& id : SampleIds(window)) intervention.add_sample_ids(id);
  observer_.intervention(intervention);
  if (state_.consecutive_skips >= kMaxConsecutiveSkips) {
    Fail(v1::NAN_LOSS, absl::StrFormat("%d updates in a row had a non-finite loss or gradient (last: loss %g, gradient norm %g)",
                                       state_.consecutive_skips, loss, grad_norm),
         &window,
         {absl::StrFormat("learning_rate=%g", spec_.learning_rate() / 4), "bf16=true", "max_grad_norm=0.3"});
  }
}

void TrainingRun::CheckAfterFirstUpdate() {
  bool moved = false;
  for (const AdapterParameter& parameter : in_.adapters->parameters()) {
    if (parameter.name.find(".lora_B.") != std::string::npos && parameter.tensor.detach().abs().max().item<float>() > 0) {
      moved = true;
      break;
    }
  }
  if (!moved) {
    Fail(v1::INTERNAL, "after the first update every B matrix is still zero: no gradient reaches the adapters", nullptr,
         {"lora.target_modules=auto"});
  }
  if (model_.FrozenChecksum() != state_.base_checksum) {
    Fail(v1::DEVICE_ERROR, "the frozen base weights changed during the first update", nullptr, {});
  }
}

void TrainingRun::Report(const StepOutcome& outcome, double seconds) {
  seconds_per_step_ = seconds_per_step_ == 0 ? seconds : 0.9 * seconds_per_step_ + 0.1 * seconds;
  v1::TrainingMetrics metrics;
  metrics.set_step(state_.step);
  metrics.set_total_steps(plan_.total_steps());
  metrics.set_epoch(state_.epoch);
  metrics.set_loss(outcome.loss);
  metrics.set_loss_average(state_.loss_average);
  metrics.set_learning_rate(schedule_.At(outcome.skipped ? state_.optimizer_steps : state_.optimizer_steps - 1));
  metrics.set_grad_norm(outcome.grad_norm);
  metrics.set_skipped(outcome.skipped);
  metrics.set_trained_tokens(outcome.targets);
  metrics.set_step_seconds(seconds);
  metrics.set_data_wait_seconds(outcome.data_seconds);
  metrics.set_tokens_per_second(static_cast<double>(outcome.tokens) / seconds);
  metrics.set_trained_tokens_per_second(static_cast<double>(outcome.targets) / seconds);
  metrics.set_samples_per_second(static_cast<double>(outcome.samples) / seconds);
  if (in_.peak_flops > 0) {
    metrics.set_mfu(flops_per_token_ * static_cast<double>(outcome.tokens) / seconds / in_.peak_flops);
  }
  metrics.set_eta_seconds(seconds_per_step_ * static_cast<double>(plan_.total_steps() - state_.step));
  pending_.push_back(metrics);

  const bool due = state_.step <= kLogEveryStepUntil || state_.step % spec_.logging_steps() == 0 ||
                   state_.step == plan_.total_steps() || plan_.EvaluatesAt(state_.step) || outcome.skipped ||
                   observer_.stop_requested() != StopRequest::kNone;
  if (!due) return;
  const DeviceMemory memory = ReadDeviceMemory(model_.device());
  const uint64_t rss = HostRssBytes();
  for (v1::TrainingMetrics& entry : pending_) {
    entry.set_device_allocated_bytes(memory.allocated);
    entry.set_device_reserved_bytes(memory.reserved);
    entry.set_device_peak_bytes(memory.peak_allocated);
    entry.set_host_rss_bytes(rss);
    observer_.metrics(entry);
  }
  pending_.clear();
}

void TrainingRun::Evaluate() {
  EvaluateOptions options;
  options.rows = spec_.per_device_eval_batch_size().value();
  options.max_seq_length = spec_.max_seq_length();
  options.max_samples = spec_.evaluation().max_eval_samples();
  options.progress = [&](int64_t done, int64_t total) {
    v1::Progress progress;
    progress.set_stage(v1::TRAINING);
    progress.set_unit("samples");
    progress.set_done(done);
    progress.set_total(total);
    progress.set_text(absl::StrFormat("evaluating after step %d of %d", state_.step, plan_.total_steps()));
    observer_.progress(progress);
  };
  options.cancelled = [&] { return observer_.stop_requested() == StopRequest::kCancel; };
  v1::EvaluationResult result;
  try {
    result = EvaluateLoss(model_, *in_.data->validation, options);
  } catch (const std::exception& error) {
    // An evaluation that fails costs its result, never the training.
    observer_.log(v1::WARNING, absl::StrCat("evaluation after step ", state_.step, " skipped: ", error.what()));
    return;
  }
  result.set_model("tuned");
  result.set_step(state_.step);
  result.set_epoch(state_.epoch);
  const double loss = result.response().loss();
  if (!std::isfinite(loss)) {
    observer_.log(v1::WARNING, absl::StrFormat("evaluation after step %d gave loss %g; it counts neither as best nor for early stopping",
                                               state_.step, loss));
    observer_.evaluation(result);
    return;
  }
  state_.eval_history.emplace_back(state_.step, loss);
  state_.train_history.emplace_back(state_.step, state_.loss_average);
  if (!state_.has_best || loss < state_.best_eval_loss) {
    state_.best_eval_loss = loss;
    state_.best_step = state_.step;
    result.set_is_best(true);
  }
  if (!state_.has_best || loss < state_.patience_reference - spec_.early_stopping_threshold()) {
    state_.patience_reference = loss;
    state_.evaluations_without_improvement = 0;
  } else {
    ++state_.evaluations_without_improvement;
  }
  state_.has_best = true;
  const int64_t patience = spec_.early_stopping_patience();
  result.set_verdict(TrainingVerdict(state_.eval_history, state_.train_history, state_.evaluations_without_improvement, patience));
  observer_.evaluation(result);
  if (patience > 0 && state_.evaluations_without_improvement >= patience && state_.step < plan_.total_steps()) {
    stop_for_patience_ = true;
    observer_.log(v1::INFO, absl::StrFormat("early stopping after step %d: %d evaluations without an improvement of %g; best was step %d "
                                            "with loss %.4f", state_.step, patience, spec_.early_stopping_threshold(), state_.best_step,
                                            state_.best_eval_loss));
  }
}

bool TrainingRun::TimeToSave(int64_t step) const {
  if (spec_.save_strategy() == "epoch") return plan_.EndsEpoch(step);
  if (spec_.save_strategy() != "steps") return false;
  if (spec_.save_steps().has_value()) return step % spec_.save_steps().value() == 0;
  const double interval = std::clamp(kSaveCostRatio * save_seconds_.load(), kMinSaveIntervalSeconds, kMaxLostSeconds);
  return SecondsSince(last_save_) >= interval;
}

double TrainingRun::ProbeLoss() {
  c10::NoGradGuard no_grad;
  MicroBatch probe;
  probe.rows = {{0}};
  return model_.TokenLosses(BuildBatch(train_, probe, Targets::kAllTokens, model_.device())).sum().item<double>();
}

CheckpointContents TrainingRun::Contents() {
  CheckpointContents contents;
  contents.state = state_;
  const auto& parameters = in_.adapters->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    contents.adapter.push_back({parameters[i].name, parameters[i].tensor});
    contents.optimizer.push_back({parameters[i].name + ".exp_avg", optimizer_.exp_avg()[i]});
    contents.optimizer.push_back({parameters[i].name + ".exp_avg_sq", optimizer_.exp_avg_sq()[i]});
  }
  contents.adapter_config_json = in_.adapters->PeftConfigJson(in_.base_model_name);
  contents.environment = in_.environment;
  contents.spec = spec_;
  return contents;
}

void TrainingRun::Save(const std::string& reason, bool is_best) {
  if (failed_saves_ >= kMaxFailedSaves) {
    Fail(disk_full_ ? v1::DISK_FULL : v1::INTERNAL,
         absl::StrCat(kMaxFailedSaves, " checkpoints in a row could not be written: ", std::string(checkpoints_.Wait().message())), nullptr, {});
  }
  if (model_.FrozenChecksum() != state_.base_checksum) {
    Fail(v1::DEVICE_ERROR, "the frozen base weights differ from those that were loaded; a checkpoint of this state would be wrong",
         nullptr, {});
  }
  state_.probe_loss = ProbeLoss();
  const auto start = SteadyClock::now();
  last_save_ = start;
  checkpoints_.Save(Contents(), reason, is_best, [this, start](const absl::StatusOr<v1::Checkpoint>& entry) {
    if (entry.ok()) {
      failed_saves_ = 0;
      save_seconds_ = SecondsSince(start);
      observer_.checkpoint(*entry);
    } else {
      ++failed_saves_;
      disk_full_ = IsDiskFull(entry.status());
      observer_.log(v1::WARNING, absl::StrCat("checkpoint not written, training goes on: ", std::string(entry.status().message())));
    }
  });
}

void TrainingRun::Adopt(const CheckpointContents& contents) {
  c10::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> adapter, optimizer;
  for (const NamedTensor& entry : contents.adapter) adapter[entry.name] = entry.tensor;
  for (const NamedTensor& entry : contents.optimizer) optimizer[entry.name] = entry.tensor;
  auto copy = [&](const std::map<std::string, at::Tensor>& from, const std::string& name, at::Tensor to) {
    const auto it = from.find(name);
    if (it == from.end()) Fail(v1::CHECKPOINT_CORRUPT, absl::StrCat("the checkpoint has no tensor ", name), nullptr, {});
    if (it->second.sizes() != to.sizes()) {
      Fail(v1::CHECKPOINT_CORRUPT, absl::StrCat("tensor ", name, " of the checkpoint has another shape than this job's adapter"), nullptr, {});
    }
    to.copy_(it->second);
  };
  const auto& parameters = in_.adapters->parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    copy(adapter, parameters[i].name, parameters[i].tensor);
    copy(optimizer, parameters[i].name + ".exp_avg", optimizer_.exp_avg()[i]);
    copy(optimizer, parameters[i].name + ".exp_avg_sq", optimizer_.exp_avg_sq()[i]);
  }
  optimizer_.set_steps(contents.state.optimizer_steps);
}

bool TrainingRun::Resume() {
  absl::StatusOr<std::optional<CheckpointContents>> loaded = checkpoints_.Load(in_.from_checkpoint_step);
  if (!loaded.ok()) Fail(v1::CHECKPOINT_CORRUPT, std::string(loaded.status().message()), nullptr, {});
  if (!loaded->has_value()) return false;
  const CheckpointContents& contents = **loaded;
  const auto same = [&](bool equal, const char* what, const char* cure) {
    if (!equal) {
      Fail(v1::CHECKPOINT_CORRUPT, absl::StrCat("the checkpoint at step ", contents.state.step, " was made with another ", what, "; ", cure),
           nullptr, {});
    }
  };
  same(contents.state.base_checksum == state_.base_checksum, "base model", "restore the model directory as it was");
  same(contents.state.data_sha256 == state_.data_sha256, "training set", "restore the data files, or rerun from stage preparing_data as a new job");
  same(contents.state.tokenizer_sha256 == state_.tokenizer_sha256, "tokenizer", "restore tokenizer.json as it was");
  same(contents.state.spec_sha256 == state_.spec_sha256, "setting of a key that training depends on", "submit a new job for other settings");
  Adopt(contents);
  state_ = contents.state;
  const double probe = ProbeLoss();
  if (probe != state_.probe_loss) {
    const double off = std::abs(probe - state_.probe_loss) / std::max(1e-12, std::abs(state_.probe_loss));
    if (!(off <= kProbeTolerance)) {
      Fail(v1::CHECKPOINT_CORRUPT, absl::StrFormat("the probe sample's loss was %.6f when the checkpoint was saved and is %.6f now", state_.probe_loss, probe),
           nullptr, {});
    }
    observer_.log(v1::WARNING, absl::StrFormat("the probe sample's loss differs by %.1e from the saved one: another device or library; "
                                               "bit-equality with the uninterrupted run is not given", off));
  }
  // A run that stopped for patience and is asked to go on has nothing to do; one with more steps now goes on.
  observer_.log(v1::INFO, absl::StrFormat("resumed from the checkpoint at step %d of %d", state_.step, plan_.total_steps()));
  return true;
}

void TrainingRun::LoadBest() {
  absl::StatusOr<std::optional<CheckpointContents>> best = checkpoints_.Load(state_.best_step);
  if (!best.ok() || !best->has_value()) {
    observer_.log(v1::WARNING, absl::StrCat("the best checkpoint (step ", state_.best_step, ") cannot be read, the last weights are used: ",
                                            std::string(best.status().message())));
    return;
  }
  Adopt(**best);
  observer_.log(v1::INFO, absl::StrFormat("what follows uses the best checkpoint: step %d, loss %.4f", state_.best_step, state_.best_eval_loss));
}

std::vector<std::string> TrainingRun::SampleIds(const RunPlan::Window& window) const {
  constexpr size_t kMost = 64;
  std::vector<std::string> ids;
  for (const MicroBatch& micro_batch : window.micro_batches) {
    for (const auto& row : micro_batch.rows) {
      for (uint32_t index : row) {
        if (ids.size() < kMost) ids.emplace_back(train_.Sample(index).sample_id);
      }
    }
  }
  return ids;
}

void TrainingRun::Fail(v1::FailureReason reason, const std::string& message, const RunPlan::Window* window,
                       std::vector<std::string> suggestions) {
  TrainingError error(reason, message);
  error.step = state_.step;
  error.last_losses.assign(last_losses_.begin(), last_losses_.end());
  error.last_grad_norms.assign(last_norms_.begin(), last_norms_.end());
  if (window != nullptr) error.sample_ids = SampleIds(*window);
  error.suggestions = std::move(suggestions);
  throw error;
}

}  // namespace

TrainResult Train(const TrainInputs& inputs, const TrainObserver& observer) {
  return TrainingRun(inputs, observer).Run();
}

}  // namespace finetuned
