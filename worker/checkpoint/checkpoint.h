// Resumable training state on disk. FORMAT.md describes the directory; the adapter part is a PEFT directory as it stands.
//
// A checkpoint is written to a temporary directory, every file SHA-256 summed into manifest.json, fsynced and renamed into
// place, so that what has its final name is whole. The copy to host memory happens on the training thread; the writing
// does not.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "finetuned/v1/types.pb.h"
#include "nlohmann/json.hpp"

namespace finetuned {

// Everything but tensors. Random numbers need no state of their own: each micro-batch seeds its generator from
// (seed, step, index); data position is the step.
struct TrainingState {
  int64_t step = 0;              // updates done or skipped
  int64_t optimizer_steps = 0;   // updates applied: AdamW's bias correction and the schedule count these
  int64_t skipped_updates = 0;
  int64_t consecutive_skips = 0;
  double epoch = 0;
  double loss_average = 0;
  double final_loss = 0;
  int64_t trained_tokens = 0, total_tokens = 0;
  bool has_best = false;
  double best_eval_loss = 0;
  int64_t best_step = 0;
  int64_t evaluations_without_improvement = 0;
  double patience_reference = 0;  // best loss that early stopping has accepted as an improvement
  std::vector<std::pair<int64_t, double>> eval_history;  // (step, eval loss)
  std::vector<std::pair<int64_t, double>> train_history;  // (step, loss average) at each evaluation
  bool stopped_early = false;
  // What the run depends on; compared when resuming.
  std::string data_sha256, tokenizer_sha256, spec_sha256;
  uint64_t base_checksum = 0;
  uint64_t seed = 0;
  // Loss sum of the first training sample with these weights: recomputed after loading.
  double probe_loss = 0;
};

nlohmann::json ToJson(const TrainingState& state);
// INVALID_ARGUMENT naming the missing or ill-typed field.
absl::StatusOr<TrainingState> TrainingStateFromJson(const nlohmann::json& json);

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

struct CheckpointContents {
  TrainingState state;
  std::vector<NamedTensor> adapter;    // PEFT names, fp32
  std::vector<NamedTensor> optimizer;  // "<parameter>.exp_avg", "<parameter>.exp_avg_sq", fp32
  std::string adapter_config_json;
  nlohmann::json environment;  // versions, device
  v1::JobSpec spec;
};

class CheckpointStore {
 public:
  // keep_newest: retention; the best is kept besides. `log` receives what was set aside or failed.
  CheckpointStore(std::string directory, int64_t keep_newest, std::function<void(v1::Level, std::string)> log);
  ~CheckpointStore();  // waits for the write under way

  // Copies all tensors to host memory, then writes in the background. One write at a time: a second Save waits for the
  // first. `done` runs on the writer thread with the entry for the event log.
  void Save(const CheckpointContents& contents, const std::string& reason, bool is_best,
            std::function<void(const absl::StatusOr<v1::Checkpoint>&)> done);
  // Until nothing is being written. Returns the status of the last save.
  absl::Status Wait();

  // Newest checkpoint whose sums are right; damaged ones are renamed to "corrupt-…" with a log line. Empty when there is
  // none. `step` −1: newest; else exactly that one (NOT_FOUND names those there are).
  absl::StatusOr<std::optional<CheckpointContents>> Load(int64_t step = -1);

  // From the directories themselves, by step.
  std::vector<v1::Checkpoint> List() const;
  std::string PathOf(int64_t step) const;

 private:
  void Prune(int64_t best_step);

  std::string directory_;
  int64_t keep_newest_;
  std::function<void(v1::Level, std::string)> log_;
  std::thread writer_;
  absl::Status last_status_;
};

}  // namespace finetuned
