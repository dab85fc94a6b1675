// The training loop. One step is one optimizer update:
//
//   for each micro-batch of the window:  (Σ loss of its targets ÷ N).backward()      N: targets of the whole window
//   norm → clip → AdamW → schedule
//
// so that 4×1, 2×2 and 1×4 rows give the same update to rounding, the partial last window of an epoch included. An
// update with a non-finite loss or gradient norm is skipped: it touches no weight, no optimizer state and no schedule.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "finetuned/v1/types.pb.h"
#include "nlohmann/json.hpp"
#include "worker/adapters/lora.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/data/prepared_data.h"
#include "worker/models/causal_lm.h"

namespace finetuned {

enum class StopRequest { kNone, kPause, kCancel, kTimeout };

// What a run tells. All calls come from the training thread, but `checkpoint`, which comes from the writer's.
struct TrainObserver {
  std::function<void(const v1::TrainingMetrics&)> metrics;
  std::function<void(const v1::EvaluationResult&)> evaluation;
  std::function<void(const v1::Checkpoint&)> checkpoint;
  std::function<void(const v1::EpochSummary&)> epoch;
  std::function<void(const v1::MemorySnapshot&)> memory;
  std::function<void(const v1::Intervention&)> intervention;
  std::function<void(const v1::Progress&)> progress;  // evaluation inside training
  std::function<void(v1::Level, std::string)> log;
  std::function<StopRequest()> stop_requested;        // asked after every micro-batch
};

struct TrainInputs {
  v1::JobSpec spec;  // resolved; batch size and accumulation are numbers
  CausalLm* model = nullptr;
  LoraAdapters* adapters = nullptr;
  const PreparedData* data = nullptr;
  std::string checkpoint_dir;
  std::string base_model_name;  // written to adapter_config.json
  std::string tokenizer_sha256;
  std::string spec_sha256;      // of the keys that training depends on
  nlohmann::json environment;
  int64_t from_checkpoint_step = -1;  // −1: newest
  double peak_flops = 0;              // of the device in the compute dtype, for MFU; 0: unknown
};

enum class TrainOutcome { kFinished, kPaused, kCancelled, kTimeout };

struct TrainResult {
  TrainOutcome outcome = TrainOutcome::kFinished;
  TrainingState state;
  int64_t total_steps = 0;
};

// Why training cannot go on; the job boundary turns it into a Failure.
class TrainingError : public std::runtime_error {
 public:
  TrainingError(v1::FailureReason reason, const std::string& message) : std::runtime_error(message), reason(reason) {}
  v1::FailureReason reason;
  int64_t step = -1;
  std::vector<double> last_losses, last_grad_norms;
  std::vector<std::string> sample_ids, suggestions;
};

// Trains the adapters in place, from the newest checkpoint if there is one. At the end the adapters hold the best
// weights (load_best_model_at_end) or the last ones. Pause and timeout checkpoint first; cancel does not.
TrainResult Train(const TrainInputs& inputs, const TrainObserver& observer);

}  // namespace finetuned
