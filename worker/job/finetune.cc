#include "worker/job/finetune.h"

#include <torch/version.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "proto/spec/spec.h"
#include "worker/adapters/lora.h"
#include "worker/checkpoint/checkpoint.h"
#include "worker/data/prepared_data.h"
#include "worker/evaluation/loss.h"
#include "worker/evaluation/report.h"
#include "worker/evaluation/verdict.h"
#include "worker/job/exports.h"
#include "worker/job/failure.h"
#include "worker/job/history.h"
#include "worker/job/job_model.h"
#include "worker/job/model_assets.h"
#include "worker/job/proto_json.h"
#include "worker/job/stage_runner.h"
#include "worker/models/model_summary.h"
#include "worker/monitor/memory.h"
#include "worker/planning/estimate.h"
#include "worker/planning/inference_memory.h"
#include "worker/training/trainer.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The merged model is compared with base and adapter on the beginning of the first training samples.
constexpr size_t kCheckedPrompts = 2;

// The keys that change what a training step computes. Another number of epochs or another interval may be resumed into.
std::string TrainingFingerprint(v1::JobSpec spec) {
  for (auto clear : {&v1::JobSpec::clear_run_name, &v1::JobSpec::clear_max_runtime, &v1::JobSpec::clear_evaluation,
                     &v1::JobSpec::clear_export_, &v1::JobSpec::clear_num_train_epochs, &v1::JobSpec::clear_max_steps,
                     &v1::JobSpec::clear_logging_steps, &v1::JobSpec::clear_eval_steps, &v1::JobSpec::clear_eval_strategy,
                     &v1::JobSpec::clear_save_steps, &v1::JobSpec::clear_save_strategy, &v1::JobSpec::clear_save_total_limit,
                     &v1::JobSpec::clear_early_stopping_patience, &v1::JobSpec::clear_early_stopping_threshold,
                     &v1::JobSpec::clear_load_best_model_at_end, &v1::JobSpec::clear_memory_fraction}) {
    (spec.*clear)();
  }
  return SpecFingerprint(spec);
}

class Finetune {
 public:
  Finetune(const v1::AttemptPlan& plan, Reporter& reporter)
      : run_(plan, reporter), plan_(plan), spec_(plan.spec()), reporter_(reporter), artifacts_(run_.artifacts()), result_(run_.result()) {}

  v1::AttemptEnd Run() { return run_.End(CatchAsStatus(v1::INTERNAL, [&] { return RunStages(); })); }

 private:
  absl::Status RunStages();
  absl::Status Begin();
  absl::Status PreparingData();
  absl::Status LoadingModel();
  absl::Status EvaluatingBase();
  absl::Status Training();
  absl::Status Evaluating();
  absl::Status Exporting();
  std::string Report() const;
  absl::Status Finish();

  absl::StatusOr<v1::EvaluationResult> EvaluateAll(const char* name, v1::Stage stage);
  absl::StatusOr<std::vector<std::string>> Answers(v1::Stage stage, const char* who);
  std::string TrainingInputs() const;
  std::string EvaluatingInputs() const { return Sha256Hex(TrainingInputs() + adapter_sha256_ + spec_.evaluation().SerializeAsString()); }

  StageRunner run_;
  const v1::AttemptPlan& plan_;
  const v1::JobSpec& spec_;
  Reporter& reporter_;
  const std::string& artifacts_;
  v1::JobResult& result_;

  ModelAssets assets_;
  PreparedData data_;
  std::unique_ptr<CausalLm> model_;
  std::unique_ptr<LoraAdapters> adapters_;
  std::unique_ptr<History> history_;
  std::string adapter_sha256_;
};

std::string Finetune::TrainingInputs() const {
  return Sha256Hex(absl::StrCat(TrainingFingerprint(spec_), data_.content_sha256, assets_.tokenizer_sha256, spec_.num_train_epochs(), "/",
                                spec_.max_steps(), "/", spec_.early_stopping_patience(), "/", spec_.load_best_model_at_end()));
}

// A rerun from the start of training forgets its checkpoints; one from a checkpoint trains on from there.
absl::Status Finetune::Begin() {
  FT_RETURN_IF_ERROR(run_.Begin());
  if (plan_.from_checkpoint_step() >= 0) {
    FT_RETURN_IF_ERROR(run_.stages().InvalidateFrom(v1::TRAINING));
  } else if (plan_.from_stage() != v1::STAGE_UNSPECIFIED && plan_.from_stage() <= v1::TRAINING) {
    FT_RETURN_IF_ERROR(RemoveAll(plan_.job_dir() + "/checkpoints"));
  }
  FT_ASSIGN_OR_RETURN(history_, History::Open(artifacts_ + "/metrics.jsonl", plan_.job_dir() + "/evaluations.jsonl"));
  return absl::OkStatus();
}

absl::Status Finetune::PreparingData() {
  return run_.Run(v1::PREPARING_DATA, v1::INVALID_DATA, [&]() -> absl::Status {
    const std::string shape = spec_.dataset().shape();
    absl::StatusOr<ModelAssets> assets = LoadModelAssets(plan_.model_path(), spec_.dataset().chat_template(),
                                                         plan_.chat_template_path(), shape != "text" && shape != "auto");
    if (!assets.ok()) return FailureStatus(v1::INVALID_SPEC, std::string(assets.status().message()), "dataset.chat_template");
    assets_ = *std::move(assets);
    for (const std::string& notice : assets_.notices) reporter_.Log(v1::WARNING, notice);
    FT_ASSIGN_OR_RETURN(const std::string config_text, ReadFile(plan_.model_path() + "/config.json"));
    const json config = json::parse(config_text, nullptr, false);

    PrepareRequest request;
    request.spec = spec_;
    request.paths.assign(plan_.dataset_paths().begin(), plan_.dataset_paths().end());
    request.validation_path = plan_.validation_path();
    request.tokenizer = assets_.tokenizer.get();
    request.chat_template = assets_.chat_template.get();
    request.bos_token = assets_.bos_token;
    request.eos_token = assets_.eos_token;
    request.pad_token = assets_.pad_token;
    request.unk_token = assets_.unk_token;
    request.add_bos = assets_.tokenizer_adds_bos;
    request.add_eos = assets_.tokenizer_adds_eos;
    request.submit_time_unix = plan_.submit_time_unix();
    request.model_vocab_size = config.is_object() ? config.value("vocab_size", int64_t{0}) : 0;
    request.tokenizer_sha256 = assets_.tokenizer_sha256;
    request.cache_dir = plan_.cache_dir();
    request.output_dir = plan_.job_dir() + "/data";
    request.reference_samples = static_cast<int>(spec_.evaluation().generate_samples());
    request.progress = [&](int64_t done, int64_t total, std::string_view unit) {
      run_.TellProgress(v1::PREPARING_DATA, unit == "bytes" ? "bytes" : "records", done, total, "reading and tokenizing the data");
    };
    request.cancelled = [&] { return run_.stopping(); };
    request.log = [&](v1::Level level, std::string text) { reporter_.Log(level, std::move(text)); };
    FT_ASSIGN_OR_RETURN(data_, PrepareData(request));
    if (!data_.quarantine_path.empty()) {
      FT_RETURN_IF_ERROR(MakeDirectories(artifacts_ + "/quarantine"));
      std::error_code error;
      fs::copy_file(data_.quarantine_path, artifacts_ + "/quarantine/quarantine.jsonl", fs::copy_options::overwrite_existing, error);
    }
    v1::JobEvent event;
    *event.mutable_dataset() = data_.statistics;
    reporter_.Emit(std::move(event));
    return run_.stages().Commit(v1::PREPARING_DATA, data_.content_sha256, MessageToJson(data_.statistics));
  });
}

absl::Status Finetune::LoadingModel() {
  if (model_ != nullptr) return absl::OkStatus();
  FT_RETURN_IF_ERROR(run_.Run(v1::LOADING_MODEL, v1::UNSUPPORTED_MODEL, [&]() -> absl::Status {
    model_ = LoadJobModel(run_);
    return absl::OkStatus();
  }));
  return run_.Run(v1::INJECTING_ADAPTERS, v1::INVALID_SPEC, [&]() -> absl::Status {
    adapters_ = plan_.adapter_path().empty() ? LoraAdapters::Inject(*model_, spec_.lora(), spec_.seed())
                                             : LoraAdapters::LoadPeft(*model_, plan_.adapter_path());
    reporter_.Log(v1::INFO, absl::StrFormat("%d adapter tensors, %d trainable parameters", adapters_->parameters().size(),
                                            adapters_->trainable_parameters()));
    EmitMemory(run_, "injected");
    return absl::OkStatus();
  });
}

absl::StatusOr<v1::EvaluationResult> Finetune::EvaluateAll(const char* name, v1::Stage stage) {
  EvaluateOptions options;
  options.rows = spec_.per_device_eval_batch_size().value();
  options.max_seq_length = spec_.max_seq_length();
  options.all_tokens = true;
  options.progress = [&](int64_t done, int64_t total) {
    run_.TellProgress(stage, "samples", done, total, absl::StrCat("loss of the ", name, " model on the validation samples"));
  };
  options.cancelled = [&] { return run_.stopping(); };
  v1::EvaluationResult result = EvaluateLoss(*model_, *data_.validation, options);
  result.set_model(name);
  return result;
}

absl::StatusOr<std::vector<std::string>> Finetune::Answers(v1::Stage stage, const char* who) {
  if (assets_.chat_template == nullptr || data_.references.empty()) return std::vector<std::string>();
  std::vector<std::vector<int32_t>> prompts;
  for (const ReferenceSample& sample : data_.references) {
    FT_ASSIGN_OR_RETURN(std::vector<int32_t> prompt, PromptIds(assets_, sample.prompt, plan_.submit_time_unix()));
    prompts.push_back(std::move(prompt));
  }
  return Answer(run_, stage, *model_, assets_, prompts, who);
}

absl::Status Finetune::EvaluatingBase() {
  if (!spec_.evaluation().baseline() || data_.validation->size() == 0) return absl::OkStatus();
  const std::string inputs = Sha256Hex(absl::StrCat(data_.content_sha256, spec_.quantization().SerializeAsString(), spec_.bf16().value(),
                                                    spec_.evaluation().SerializeAsString(), plan_.device()));
  auto take = [&](const json& stored) -> absl::Status {
    FT_RETURN_IF_ERROR(MessageFromJson(stored.at("evaluation"), result_.mutable_base()));
    result_.clear_samples();
    for (size_t i = 0; i < stored.at("answers").size() && i < data_.references.size(); ++i) {
      v1::GenerationSample& sample = *result_.add_samples();
      sample.set_sample_id(data_.references[i].sample_id);
      sample.set_prompt(data_.references[i].prompt.empty() ? "" : data_.references[i].prompt.back().content);
      sample.set_reference(data_.references[i].reference);
      sample.set_base(stored["answers"][i].get<std::string>());
    }
    return absl::OkStatus();
  };
  if (!run_.stages().Result(v1::EVALUATING_BASE, inputs).has_value()) FT_RETURN_IF_ERROR(LoadingModel());
  return run_.RunDurable(v1::EVALUATING_BASE, v1::EVALUATION_FAILED, inputs, take, [&]() -> absl::StatusOr<json> {
    model_->SetAdaptersEnabled(false);
    absl::StatusOr<v1::EvaluationResult> evaluation = EvaluateAll("base", v1::EVALUATING_BASE);
    absl::StatusOr<std::vector<std::string>> answers =
        evaluation.ok() ? Answers(v1::EVALUATING_BASE, "base") : absl::StatusOr<std::vector<std::string>>(evaluation.status());
    model_->SetAdaptersEnabled(true);
    FT_RETURN_IF_ERROR(answers.status());
    v1::JobEvent event;
    *event.mutable_evaluation() = *evaluation;
    reporter_.Emit(std::move(event));
    FT_RETURN_IF_ERROR(history_->Add(*evaluation));
    const json stored = {{"evaluation", MessageToJson(*evaluation)}, {"answers", *answers}};
    FT_RETURN_IF_ERROR(take(stored));
    return stored;
  });
}

absl::Status Finetune::Training() {
  const std::string adapter_dir = artifacts_ + "/adapter";
  const std::string adapter_file = adapter_dir + "/adapter_model.safetensors";
  auto restore = [&](const json& stored) -> absl::Status {
    FT_ASSIGN_OR_RETURN(adapter_sha256_, Sha256File(adapter_file));
    if (adapter_sha256_ != stored.value("adapter_sha256", "")) return absl::DataLossError("the adapter is damaged");
    v1::JobResult facts;
    FT_RETURN_IF_ERROR(MessageFromJson(stored.at("result"), &facts));
    result_.MergeFrom(facts);
    return absl::OkStatus();
  };
  const std::string inputs = TrainingInputs();
  if (!run_.stages().Result(v1::TRAINING, inputs).has_value()) FT_RETURN_IF_ERROR(LoadingModel());
  return run_.RunDurable(v1::TRAINING, v1::INTERNAL, inputs, restore, [&]() -> absl::StatusOr<json> {
    FT_RETURN_IF_ERROR(LoadingModel());
    run_.Enter(v1::TRAINING);
    TrainInputs in;
    in.spec = spec_;
    in.model = model_.get();
    in.adapters = adapters_.get();
    in.data = &data_;
    in.checkpoint_dir = plan_.job_dir() + "/checkpoints";
    in.base_model_name = spec_.model_name_or_path();
    in.tokenizer_sha256 = assets_.tokenizer_sha256;
    in.spec_sha256 = TrainingFingerprint(spec_);
    in.environment = {{"device", plan_.device()}, {"torch", TORCH_VERSION}};
    in.from_checkpoint_step = plan_.from_checkpoint_step();

    TrainObserver observer;
    auto emit = [&](auto set) {
      v1::JobEvent event;
      set(event);
      reporter_.Emit(std::move(event));
    };
    observer.metrics = [&](const v1::TrainingMetrics& metrics) {
      emit([&](v1::JobEvent& event) { *event.mutable_metrics() = metrics; });
      if (absl::Status status = history_->Add(metrics); !status.ok()) reporter_.Log(v1::WARNING, std::string(status.message()));
    };
    observer.evaluation = [&](const v1::EvaluationResult& evaluation) {
      emit([&](v1::JobEvent& event) { *event.mutable_evaluation() = evaluation; });
      if (absl::Status status = history_->Add(evaluation); !status.ok()) reporter_.Log(v1::WARNING, std::string(status.message()));
    };
    observer.checkpoint = [&](const v1::Checkpoint& entry) { emit([&](v1::JobEvent& event) { *event.mutable_checkpoint() = entry; }); };
    observer.epoch = [&](const v1::EpochSummary& summary) { emit([&](v1::JobEvent& event) { *event.mutable_epoch() = summary; }); };
    observer.memory = [&](const v1::MemorySnapshot& snapshot) { emit([&](v1::JobEvent& event) { *event.mutable_memory() = snapshot; }); };
    observer.intervention = [&](const v1::Intervention& what) {
      emit([&](v1::JobEvent& event) {
        event.set_level(v1::WARNING);
        *event.mutable_intervention() = what;
      });
    };
    observer.progress = [&](const v1::Progress& progress) { reporter_.Progress(progress); };
    observer.log = [&](v1::Level level, std::string text) { reporter_.Log(level, std::move(text)); };
    observer.stop_requested = [&] { return reporter_.stop_requested(); };

    const TrainResult trained = Train(in, observer);
    if (trained.outcome != TrainOutcome::kFinished) return absl::CancelledError("training stopped on request");
    result_.set_final_loss(trained.state.final_loss);
    result_.set_best_eval_loss(trained.state.best_eval_loss);
    result_.set_best_step(trained.state.best_step);
    result_.set_steps(trained.state.step);
    result_.set_trained_tokens(trained.state.trained_tokens);
    result_.set_total_tokens(trained.state.total_tokens);

    const std::string temporary = adapter_dir + ".tmp";
    FT_RETURN_IF_ERROR(RemoveAll(temporary));
    FT_RETURN_IF_ERROR(MakeDirectories(temporary));
    adapters_->SavePeft(temporary, spec_.model_name_or_path());
    adapters_->VerifyPeft(temporary);
    FT_RETURN_IF_ERROR(RemoveAll(adapter_dir));
    FT_RETURN_IF_ERROR(RenameDurable(temporary, adapter_dir));
    FT_ASSIGN_OR_RETURN(adapter_sha256_, Sha256File(adapter_file));
    v1::JobResult facts = result_;
    facts.clear_base();
    facts.clear_samples();
    facts.clear_stage_seconds();
    return json{{"adapter_sha256", adapter_sha256_}, {"result", MessageToJson(facts)}};
  });
}

absl::Status Finetune::Evaluating() {
  if (data_.validation->size() == 0) return absl::OkStatus();
  auto take = [&](const json& stored) -> absl::Status {
    FT_RETURN_IF_ERROR(MessageFromJson(stored.at("evaluation"), result_.mutable_tuned()));
    for (int i = 0; i < result_.samples_size() && static_cast<size_t>(i) < stored.at("answers").size(); ++i) {
      result_.mutable_samples(i)->set_tuned(stored["answers"][static_cast<size_t>(i)].get<std::string>());
    }
    return absl::OkStatus();
  };
  const std::string inputs = EvaluatingInputs();
  const bool done = run_.stages().Result(v1::EVALUATING, inputs).has_value();
  if (!done && model_ == nullptr) {
    FT_RETURN_IF_ERROR(LoadingModel());
    // The adapter of an earlier attempt takes the place of the fresh one.
    FT_RETURN_IF_ERROR(CatchAsStatus(v1::EVALUATION_FAILED, [&] {
      adapters_ = LoraAdapters::LoadPeft(*model_, artifacts_ + "/adapter");
      return absl::OkStatus();
    }));
  }
  return run_.RunDurable(v1::EVALUATING, v1::EVALUATION_FAILED, inputs, take, [&]() -> absl::StatusOr<json> {
    FT_ASSIGN_OR_RETURN(v1::EvaluationResult evaluation, EvaluateAll("tuned", v1::EVALUATING));
    evaluation.set_step(spec_.load_best_model_at_end() && result_.best_step() > 0 ? result_.best_step() : result_.steps());
    FT_ASSIGN_OR_RETURN(const std::vector<std::string> answers, Answers(v1::EVALUATING, "tuned"));
    v1::JobEvent event;
    *event.mutable_evaluation() = evaluation;
    reporter_.Emit(std::move(event));
    const json stored = {{"evaluation", MessageToJson(evaluation)}, {"answers", answers}};
    FT_RETURN_IF_ERROR(take(stored));
    return stored;
  });
}

absl::Status Finetune::Exporting() {
  // Merging and its check load what they need themselves.
  adapters_.reset();
  model_.reset();
  v1::VerifiedExport& adapter = *result_.add_exports();
  adapter.set_name("adapter");
  adapter.set_proof("read back equal to the trained tensors");
  ExportInputs inputs;
  inputs.model_dir = plan_.model_path();
  inputs.adapter_dir = artifacts_ + "/adapter";
  inputs.adapter_sha256 = adapter_sha256_;
  for (size_t i = 0; i < std::min<size_t>(kCheckedPrompts, data_.train->size()); ++i) {
    const auto ids = data_.train->Sample(i).input_ids;
    inputs.prompts.emplace_back(ids.begin(), ids.begin() + std::min(kCheckedTokens, static_cast<int64_t>(ids.size())));
  }
  inputs.provenance = {{"base_model", spec_.model_name_or_path()},
                       {"job", plan_.job_id()},
                       {"adapter_sha256", adapter_sha256_},
                       {"dataset_sha256", data_.content_sha256},
                       {"spec_sha256", SpecFingerprint(spec_)},
                       {"steps", result_.steps()},
                       {"final_loss", result_.final_loss()}};
  if (result_.has_tuned()) inputs.provenance["response_perplexity"] = result_.tuned().response().perplexity();
  if (result_.has_base()) inputs.provenance["base_response_perplexity"] = result_.base().response().perplexity();
  return WriteExports(run_, inputs);
}

std::string Finetune::Report() const {
  ReportInputs inputs;
  inputs.job_id = plan_.job_id();
  inputs.spec = spec_;
  inputs.metrics = history_->metrics();
  inputs.evaluations = history_->evaluations();
  inputs.checkpoints = CheckpointStore(plan_.job_dir() + "/checkpoints", spec_.save_total_limit(), [](v1::Level, const std::string&) {}).List();
  inputs.dataset = data_.statistics;
  inputs.result = result_;
  inputs.estimate = EstimateRun(spec_, InspectModelDir(plan_.model_path()), ProbeDevice(plan_.device()), data_.train->total_tokens(),
                                data_.statistics.packed_rows());
  for (const v1::VerifiedExport& verified : result_.exports()) inputs.exports.emplace_back(verified.name(), "verified: " + verified.proof());
  inputs.provenance = {{"base model", spec_.model_name_or_path()},
                       {"adapter SHA-256", adapter_sha256_},
                       {"data SHA-256", data_.content_sha256},
                       {"tokenizer SHA-256", assets_.tokenizer_sha256},
                       {"settings SHA-256", SpecFingerprint(spec_)},
                       {"seed", absl::StrCat(spec_.seed())},
                       {"device", plan_.device()},
                       {"LibTorch", TORCH_VERSION}};
  return RenderReportHtml(inputs);
}

absl::Status Finetune::Finish() {
  result_.set_verdict(JobVerdict(result_));
  const DeviceMemory memory = ReadDeviceMemory(at::Device(plan_.device()));
  result_.set_peak_device_bytes(memory.peak_allocated);
  result_.set_peak_host_bytes(HostPeakRssBytes());
  result_.set_predicted_peak_bytes(plan_.predicted_peak_bytes());
  FT_RETURN_IF_ERROR(run_.CollectArtifacts());  // summary and report name them
  FT_RETURN_IF_ERROR(WriteFileAtomic(artifacts_ + "/summary.json", MessageToJson(result_).dump(1)));
  FT_RETURN_IF_ERROR(WriteFileAtomic(artifacts_ + "/report.html", Report()));
  return run_.CollectArtifacts();
}

absl::Status Finetune::RunStages() {
  FT_RETURN_IF_ERROR(Begin());
  FT_RETURN_IF_ERROR(PreparingData());
  FT_RETURN_IF_ERROR(EvaluatingBase());
  FT_RETURN_IF_ERROR(Training());
  FT_RETURN_IF_ERROR(Evaluating());
  FT_RETURN_IF_ERROR(Exporting());
  return Finish();
}

}  // namespace

v1::AttemptEnd RunFinetune(const v1::AttemptPlan& plan, Reporter& reporter) { return Finetune(plan, reporter).Run(); }

}  // namespace finetuned
