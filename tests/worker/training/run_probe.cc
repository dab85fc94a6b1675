// What a job trains on, for a peer that repeats it: the batches of its updates in order, and the
// adapter it begins with.
//
//   run_probe PLAN.pb OUT_DIR
//
// PLAN: the AttemptPlan of an attempt whose data is prepared, alone in its cache directory. OUT_DIR
// gets adapter/ (PEFT) and batches.safetensors, int64: U.M.input_ids, .position_ids and .targets
// [t] of micro-batch M of update U, both from 0, and U.M.row_ends [rows], where in t each row ends.
#include <ATen/Functions.h>

#include <filesystem>
#include <fstream>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "finetuned/v1/worker.pb.h"
#include "worker/adapters/lora.h"
#include "worker/data/cache_entry.h"
#include "worker/evaluation/batch_builder.h"
#include "worker/models/safetensors.h"
#include "worker/training/run_plan.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;

template <typename T>
T OrThrow(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(std::string(value.status().message()));
  return *std::move(value);
}

std::string OnlyEntry(const std::string& cache_dir) {
  std::vector<std::string> keys;
  for (const auto& entry : fs::directory_iterator(cache_dir)) {
    if (entry.is_directory()) keys.push_back(entry.path().filename());
  }
  if (keys.size() != 1) {
    throw std::runtime_error(absl::StrCat(cache_dir, " holds ", keys.size(), " entries, not one"));
  }
  return keys.front();
}

void Run(const std::string& plan_path, const std::string& out) {
  v1::AttemptPlan plan;
  std::ifstream file(plan_path, std::ios::binary);
  if (!plan.ParseFromIstream(&file)) throw std::runtime_error(plan_path + " is no AttemptPlan");
  const CacheEntry entry = OrThrow(OpenCacheEntry(plan.cache_dir(), OnlyEntry(plan.cache_dir())));
  const auto store = MakeTokenStore(entry.tokens, entry.train);

  RunPlan course(plan.spec(), SampleLengths(*store), /*eval_tokens=*/0);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (int64_t update = 0; update < course.total_steps(); ++update) {
    const RunPlan::Window window = course.At(update);
    for (size_t m = 0; m < window.micro_batches.size(); ++m) {
      const MicroBatch& micro_batch = window.micro_batches[m];
      const Batch batch = BuildBatch(*store, micro_batch, Targets::kTrained, at::kCPU);
      std::vector<int64_t> row_ends;
      size_t document = 0;
      for (const auto& row : micro_batch.rows) {
        document += row.size();
        row_ends.push_back(batch.cu_seqlens[document]);
      }
      const std::string name = absl::StrCat(update, ".", m, ".");
      tensors.emplace_back(name + "input_ids", batch.input_ids);
      tensors.emplace_back(name + "position_ids", batch.position_ids);
      tensors.emplace_back(name + "targets", batch.targets);
      tensors.emplace_back(name + "row_ends", at::tensor(row_ends, at::kLong));
    }
  }
  std::vector<SafetensorsWriter::Declared> declared;
  for (const auto& [name, tensor] : tensors) {
    declared.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  }
  SafetensorsWriter writer(out + "/batches.safetensors", declared, {});
  for (const auto& [name, tensor] : tensors) writer.Write(name, tensor);
  writer.Finish();

  const auto model = LoadCausalLm(plan.model_path(), {});
  fs::create_directories(out + "/adapter");
  LoraAdapters::Inject(*model, plan.spec().lora(), plan.spec().seed())
      ->SavePeft(out + "/adapter", plan.spec().model_name_or_path());
}

}  // namespace
}  // namespace finetuned

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: run_probe PLAN.pb OUT_DIR\n";
    return 2;
  }
  try {
    finetuned::Run(argv[1], argv[2]);
  } catch (const std::exception& error) {
    std::cerr << "run_probe: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
