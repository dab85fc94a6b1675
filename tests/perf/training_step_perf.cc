// Speed and memory of a training step on one GPU: random weights, random tokens, no files. One JSON
// line a case.
//
//   training_step_perf [shape=7b] [steps=16] [heat=1.5] [trace=FILE] CASE…
//   CASE: ROWSxLENGTH:kept|recompute[:plain|:packed|:records]
//
// Each step reads loss and gradient norm back, clips and updates, as the trainer does; after `heat`
// seconds of warming up the median of `steps` counts. `plain` turns the hand-ordered path off.
// `packed` fills the same number of tokens with documents of 1 to LENGTH tokens, `records` with 20
// to 120; 16 batches take turns. trace: a Chrome trace of two steps.
#include <ATen/Context.h>
#include <ATen/ops/_foreach_mul.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

#include "tests/worker/models/random_decoder.h"
#include "tests/worker/models/random_inputs.h"
#include "worker/training/adamw.h"

namespace finetuned {
namespace {

const std::map<std::string, RandomShape> kShapes = {
    {"small", {}},
    {"7b", {4096, 11008, 32, 32, 128, 32, 32000}},
    {"8b", {4096, 14336, 32, 8, 128, 32, 128256}},
    {"13b", {5120, 13824, 40, 40, 128, 40, 32000}},
    {"2layers", {4096, 11008, 32, 32, 128, 2, 32000}},
};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Step {
  double loss = 0, norm = 0;
};

Step RunStep(Decoder& model, AdamW& optimizer, const Batch& batch) {
  const auto n = static_cast<double>(batch.target_count);
  const at::Tensor loss = model.LossSum(batch);
  (loss / n).backward();
  const std::vector<at::Tensor> gradients = optimizer.Gradients();
  const at::Tensor norm = GlobalGradNorm(gradients);
  const Step step = {loss.item<double>() / n, norm.item<double>()};
  if (const double coefficient = 1 / (step.norm + 1e-6); coefficient < 1)
    at::_foreach_mul_(gradients, coefficient);
  optimizer.Step(2e-4);
  optimizer.ZeroGrad();
  return step;
}

void RunCase(const RandomShape& shape, const std::string& text, size_t steps, double heat,
             const std::string& trace) {
  long rows = 0, length = 0;
  char mode[32] = {};
  if (std::sscanf(text.c_str(), "%ldx%ld:%31s", &rows, &length, mode) != 3) {
    std::fprintf(stderr, "not a case: %s\n", text.c_str());
    std::exit(2);
  }
  const std::string plan = mode;
  auto start = Now();
  Decoder model(RandomConfig(shape), RandomWeights(shape, RandomBase::kNf4, 1));
  const auto adapters = LoraAdapters::Inject(model, LoraSpec(16), 1);
  RandomB(*adapters, 0.001);
  model.SetGradientCheckpointing(plan.find("recompute") == 0);
  model.SetFastPath(plan.find(":plain") == std::string::npos);
  std::vector<at::Tensor> parameters;
  for (const AdapterParameter& parameter : adapters->parameters())
    parameters.push_back(parameter.tensor);
  AdamW optimizer(parameters, {});
  std::vector<Batch> batches;
  std::mt19937 engine(5);
  const bool packed = plan.find(":packed") != std::string::npos,
             records = plan.find(":records") != std::string::npos;
  while (packed || records) {
    std::vector<int64_t> documents;
    int64_t left = rows * length;
    for (int64_t row_left = length; left > 0;
         row_left = left % length == 0 ? length : left % length) {
      const auto drawn =
          static_cast<int64_t>(records ? 20 + engine() % 101 : 1 + engine() % length);
      documents.push_back(std::min(drawn, row_left));
      left -= documents.back();
    }
    batches.push_back(RandomBatch(documents, shape.vocabulary, 1, 3, at::kCUDA));
    if (batches.size() == 16) break;
  }
  if (batches.empty())
    batches.push_back(RandomBatch(std::vector<int64_t>(static_cast<size_t>(rows), length),
                                  shape.vocabulary, 1, 3, at::kCUDA));
  c10::cuda::device_synchronize();
  const double load = Now() - start;
  c10::cuda::CUDACachingAllocator::emptyCache();
  c10::cuda::CUDACachingAllocator::resetPeakStats(0);
  const double weights = static_cast<double>(
      c10::cuda::CUDACachingAllocator::getDeviceStats(0).allocated_bytes[0].current);
  start = Now();
  size_t turn = 0;
  const auto next = [&] { return RunStep(model, optimizer, batches[turn++ % batches.size()]); };
  const Step first = next();
  const double first_seconds = Now() - start;
  // The first round over all batches also builds plans.
  start = Now();
  for (size_t i = 1; i < batches.size(); ++i) next();
  const double round_seconds = Now() - start;
  for (start = Now(); Now() - start < heat;) next();
  std::vector<double> seconds;
  Step last;
  for (size_t i = 0; i < steps; ++i) {
    start = Now();
    last = next();
    c10::cuda::device_synchronize();
    seconds.push_back(Now() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  char clock[128] = "";
  for (int i = 0; i < 2; ++i) next();
  if (FILE* smi = popen("nvidia-smi --query-gpu=clocks.sm,power.draw --format=csv,noheader", "r")) {
    if (std::fgets(clock, sizeof clock, smi) != nullptr)
      clock[std::string(clock).find_last_not_of("\n") + 1] = 0;
    pclose(smi);
  }
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(0);
  const double gib = 1 << 30;
  std::printf(
      "{\"case\": \"%s\", \"tok_s\": %.0f, \"us_tok\": %.2f, \"fastest_us\": %.2f, "
      "\"weights_gib\": %.2f, \"alloc_gib\": %.2f, "
      "\"resv_gib\": %.2f, \"loss0\": %.6f, \"gnorm0\": %.6f, \"loss\": %.6f, \"gnorm\": %.6f, "
      "\"load_s\": %.1f, "
      "\"first_step_s\": %.2f, \"first_round_s\": %.2f, \"after\": \"%s\"}\n",
      text.c_str(), static_cast<double>(rows * length) / median,
      median / static_cast<double>(rows * length) * 1e6,
      seconds[0] / static_cast<double>(rows * length) * 1e6, weights / gib,
      static_cast<double>(stats.allocated_bytes[0].peak) / gib,
      static_cast<double>(stats.reserved_bytes[0].peak) / gib, first.loss, first.norm, last.loss,
      last.norm, load, first_seconds, round_seconds, clock);
  std::fflush(stdout);
  if (trace.empty()) return;
  namespace profiler = torch::autograd::profiler;
  const std::set<torch::profiler::impl::ActivityType> activities = {
      torch::profiler::impl::ActivityType::CUDA};
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  for (int i = 0; i < 2; ++i) next();
  c10::cuda::device_synchronize();
  profiler::disableProfiler()->save(trace);
}

}  // namespace
}  // namespace finetuned

int main(int argc, char** argv) {
  using namespace finetuned;
  if (!at::hasCUDA()) {
    std::printf("no GPU: nothing to measure\n");
    return 77;
  }
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  at::globalContext().setDeterministicAlgorithms(true, false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  std::string shape = "7b", trace;
  size_t steps = 16;
  double heat = 1.5;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equal = argument.find('=');
    const std::string key = argument.substr(0, equal),
                      value = equal == std::string::npos ? "" : argument.substr(equal + 1);
    if (key == "shape") {
      shape = value;
    } else if (key == "steps") {
      steps = std::stoul(value);
    } else if (key == "heat") {
      heat = std::stod(value);
    } else if (key == "trace") {
      trace = value;
    } else {
      RunCase(kShapes.at(shape), argument, steps, heat, trace);
      c10::cuda::CUDACachingAllocator::emptyCache();
    }
  }
}
