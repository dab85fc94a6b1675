#include "worker/job/job_model.h"

#include "worker/evaluation/generation.h"
#include "worker/monitor/memory.h"

namespace finetuned {

void EmitMemory(StageRunner& run, const char* point) {
  v1::JobEvent event;
  *event.mutable_memory() = TakeMemorySnapshot(point, at::Device(run.plan().device()));
  run.reporter().Emit(std::move(event));
}

std::unique_ptr<CausalLm> LoadJobModel(StageRunner& run) {
  const v1::JobSpec& spec = run.spec();
  EmitMemory(run, "baseline");
  LoadOptions options;
  options.device = at::Device(run.plan().device());
  options.compute_dtype = spec.bf16().value() ? at::kBFloat16 : at::kFloat;
  options.load_in_4bit = spec.quantization().load_in_4bit().value();
  options.quant_type = spec.quantization().bnb_4bit_quant_type() == "fp4" ? QuantType::kFp4 : QuantType::kNf4;
  options.double_quant = spec.quantization().bnb_4bit_use_double_quant();
  options.progress = [&](int64_t done, int64_t total, const std::string& text) {
    run.TellProgress(v1::LOADING_MODEL, "tensors", done, total, text);
  };
  std::unique_ptr<CausalLm> model = LoadCausalLm(run.plan().model_path(), options);
  model->SetGradientCheckpointing(spec.gradient_checkpointing().value());
  EmitMemory(run, "loaded");
  return model;
}

std::vector<std::string> Answer(StageRunner& run, v1::Stage stage, CausalLm& model, const ModelAssets& assets,
                                const std::vector<std::vector<int32_t>>& prompts, const std::string& who) {
  GenerateOptions options;
  options.settings = run.spec().evaluation().generation();
  options.stop_token_ids = assets.stop_token_ids;
  options.seed = run.spec().seed();
  options.progress = [&](int64_t done, int64_t total) {
    run.TellProgress(stage, "tokens", done, total, "answers of the " + who + " model");
  };
  options.cancelled = [&] { return run.stopping(); };
  std::vector<std::string> answers;
  for (const auto& ids : Generate(model, prompts, options)) {
    answers.push_back(assets.tokenizer->Decode(ids, /*skip_special_tokens=*/true));
  }
  return answers;
}

}  // namespace finetuned
