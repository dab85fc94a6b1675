// The bridge for comparisons with Python: loads a model directory, runs one batch, writes what came
// out.
//
//   model_probe MODEL_DIR BATCH.safetensors OUT.safetensors [--dtype float32|bfloat16] [--4bit
//   nf4|fp4]
//               [--single-quant] [--adapter PEFT_DIR] [--checkpointing] [--device cpu|cuda]
//               [--save-adapter DIR] [--bench N]
//
// With --bench N instead: N timed forward and backward passes; prints tokens per second, loss and
// gradient norm.
//
// BATCH: input_ids, position_ids, targets [t] int64, cu_seqlens [n + 1] int64. OUT: logits [t, v],
// token_losses [t], loss_sum, and with an adapter grad.<PEFT name> of each of its tensors.
#include <ATen/Context.h>
#include <ATen/Functions.h>

#include <chrono>
#include <cmath>
#include <iostream>

#include "worker/adapters/lora.h"
#include "worker/models/causal_lm.h"
#include "worker/models/safetensors.h"

namespace finetuned {
namespace {

struct Arguments {
  std::string model, batch, out, adapter, save_adapter;
  LoadOptions load;
  bool checkpointing = false;
  int bench = 0;
};

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  std::vector<std::string> positional;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
    if (flag == "--dtype") {
      arguments.load.compute_dtype = value() == "bfloat16" ? at::kBFloat16 : at::kFloat;
    } else if (flag == "--4bit") {
      arguments.load.load_in_4bit = true;
      arguments.load.quant_type = value() == "fp4" ? QuantType::kFp4 : QuantType::kNf4;
    } else if (flag == "--single-quant") {
      arguments.load.double_quant = false;
    } else if (flag == "--adapter") {
      arguments.adapter = value();
    } else if (flag == "--save-adapter") {
      arguments.save_adapter = value();
    } else if (flag == "--checkpointing") {
      arguments.checkpointing = true;
    } else if (flag == "--bench") {
      arguments.bench = std::stoi(value());
    } else if (flag == "--device") {
      arguments.load.device = at::Device(value());
    } else {
      positional.push_back(flag);
    }
  }
  if (positional.size() != 3)
    throw std::runtime_error("usage: model_probe MODEL_DIR BATCH OUT [flags]");
  arguments.model = positional[0];
  arguments.batch = positional[1];
  arguments.out = positional[2];
  return arguments;
}

Batch ReadBatch(const std::string& path, at::Device device) {
  const auto file = SafetensorsFile::Open(path);
  const auto read = [&](const char* name) { return file->Tensor(name).clone(); };
  const at::Tensor boundaries = read("cu_seqlens");
  Batch batch{read("input_ids").to(device),
              read("position_ids").to(device),
              read("targets").to(device),
              {}};
  const int64_t* at = boundaries.const_data_ptr<int64_t>();
  batch.cu_seqlens.assign(at, at + boundaries.numel());
  for (size_t i = 1; i < batch.cu_seqlens.size(); ++i) {
    batch.max_seqlen = std::max(batch.max_seqlen, batch.cu_seqlens[i] - batch.cu_seqlens[i - 1]);
  }
  batch.target_count = batch.targets.ne(kIgnoreIndex).sum().item<int64_t>();
  return batch;
}

void Bench(CausalLm& model, LoraAdapters& adapters, const Batch& batch, int passes) {
  for (int pass = 0; pass <= passes; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    const at::Tensor loss = model.LossSum(batch) / static_cast<double>(batch.target_count);
    loss.backward();
    double squares = 0;
    for (AdapterParameter& parameter : adapters.parameters()) {
      squares += parameter.tensor.grad().square().sum().item<double>();
      parameter.tensor.mutable_grad().reset();
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (pass == 0) continue;  // allocates and warms up
    std::cout << static_cast<double>(batch.input_ids.numel()) / seconds << " tok/s loss "
              << loss.item<double>() << " grad_norm " << std::sqrt(squares) << std::endl;
  }
}

void Run(const Arguments& arguments) {
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  const auto model = LoadCausalLm(arguments.model, arguments.load);
  std::unique_ptr<LoraAdapters> adapters;
  if (!arguments.adapter.empty()) adapters = LoraAdapters::LoadPeft(*model, arguments.adapter);
  if (adapters && !arguments.save_adapter.empty())
    adapters->SavePeft(arguments.save_adapter, arguments.model);
  model->SetGradientCheckpointing(arguments.checkpointing);
  const Batch batch = ReadBatch(arguments.batch, arguments.load.device);
  if (arguments.bench > 0) return Bench(*model, *adapters, batch, arguments.bench);
  std::vector<std::pair<std::string, at::Tensor>> out;
  {
    at::NoGradGuard no_grad;
    out.emplace_back("logits", model->Logits(model->Hidden(batch)));
    out.emplace_back("token_losses", model->TokenLosses(batch));
  }
  const at::Tensor loss = model->LossSum(batch);
  out.emplace_back("loss_sum", loss.detach().reshape({1}));
  if (adapters) {
    loss.backward();
    for (const AdapterParameter& parameter : adapters->parameters()) {
      out.emplace_back("grad." + parameter.name, parameter.tensor.grad());
    }
  }
  std::vector<SafetensorsWriter::Declared> declared;
  for (auto& [name, tensor] : out)
    declared.push_back({name, tensor.scalar_type(), tensor.sizes().vec()});
  SafetensorsWriter writer(arguments.out, declared, {});
  for (auto& [name, tensor] : out) writer.Write(name, tensor);
  writer.Finish();
}

}  // namespace
}  // namespace finetuned

int main(int argc, char** argv) {
  try {
    finetuned::Run(finetuned::Parse(argc, argv));
  } catch (const std::exception& error) {
    std::cerr << "model_probe: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
