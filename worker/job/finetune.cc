#include "worker/job/finetune.h"

#include <torch/version.h>

#include <chrono>
#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "proto/spec/spec.h"
#include "worker/adapters/lora.h"
#include "worker/data/prepared_data.h"
#include "worker/evaluation/generation.h"
#include "worker/evaluation/loss.h"
#include "worker/evaluation/verdict.h"
#include "worker/job/failure.h"
#include "worker/job/history.h"
#include "worker/job/model_assets.h"
#include "worker/job/stage_store.h"
#include "worker/monitor/memory.h"
#include "worker/training/trainer.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

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
      : plan_(plan), spec_(plan.spec()), reporter_(reporter), stages_(plan.job_dir()), artifacts_(plan.job_dir() + "/artifacts") {}

  v1::AttemptEnd Run();

 private:
  absl::Status RunStages();
  absl::Status Begin();
  absl::Status PreparingData();
  absl::Status LoadingModel();
  absl::Status EvaluatingBase();
  absl::Status Training();
  absl::Status Evaluating();
  absl::Status Finish();

  // Tells start and end of a stage around `body`, whose exceptions become a Failure of that stage.
  absl::Status Stage(v1::Stage stage, v1::FailureReason reason, const std::function<absl::Status()>& body);
  // A durable one: skipped where its result is there. `restore` takes a stored result, `body` makes one.
  absl::Status DurableStage(v1::Stage stage, v1::FailureReason reason, const std::string& inputs,
                            const std::function<absl::Status(const json&)>& restore,
                            const std::function<absl::StatusOr<json>()>& body);
  absl::StatusOr<v1::EvaluationResult> EvaluateAll(const char* name, v1::Stage stage);
  absl::StatusOr<std::vector<std::string>> Answers(v1::Stage stage, const char* who);
  void TellProgress(v1::Stage stage, const char* unit, int64_t done, int64_t total, std::string text);
  std::string TrainingInputs() const;
  std::string EvaluatingInputs() const { return Sha256Hex(TrainingInputs() + adapter_sha256_ + spec_.evaluation().SerializeAsString()); }
  bool Stopping() const { return reporter_.stop_requested() != StopRequest::kNone; }

  const v1::AttemptPlan& plan_;
  const v1::JobSpec& spec_;
  Reporter& reporter_;
  StageStore stages_;
  const std::string artifacts_;

  v1::Stage stage_ = v1::STAGE_UNSPECIFIED;
  ModelAssets assets_;
  PreparedData data_;
  std::unique_ptr<CausalLm> model_;
  std::unique_ptr<LoraAdapters> adapters_;
  std::unique_ptr<History> history_;
  TrainOutcome train_outcome_ = TrainOutcome::kFinished;
  std::string adapter_sha256_;
  v1::JobResult result_;
};

absl::Status Finetune::Stage(v1::Stage stage, v1::FailureReason reason, const std::function<absl::Status()>& body) {
  if (Stopping()) return absl::CancelledError("stop requested");
  stage_ = stage;
  const auto start = SteadyClock::now();
  reporter_.StageStarted(stage);
  FT_RETURN_IF_ERROR(CatchAsStatus(reason, body));
  const double seconds = SecondsSince(start);
  (*result_.mutable_stage_seconds())[StageName(stage)] += seconds;
  reporter_.StageFinished(stage, seconds, /*reused=*/false);
  return absl::OkStatus();
}

absl::Status Finetune::DurableStage(v1::Stage stage, v1::FailureReason reason, const std::string& inputs,
                                    const std::function<absl::Status(const json&)>& restore,
                                    const std::function<absl::StatusOr<json>()>& body) {
  if (const auto done = stages_.Result(stage, inputs); done.has_value() && restore(*done).ok()) {
    reporter_.StageStarted(stage);
    reporter_.StageFinished(stage, 0, /*reused=*/true);
    return absl::OkStatus();
  }
  return Stage(stage, reason, [&]() -> absl::Status {
    FT_ASSIGN_OR_RETURN(const json result, body());
    return stages_.Commit(stage, inputs, result);
  });
}

void Finetune::TellProgress(v1::Stage stage, const char* unit, int64_t done, int64_t total, std::string text) {
  v1::Progress progress;
  progress.set_stage(stage);
  progress.set_unit(unit);
  progress.set_done(done);
  progress.set_total(total);
  progress.set_text(std::move(text));
  reporter_.Progress(std::move(progress));
}

std::string Finetune::TrainingInputs() const {
  return Sha256Hex(absl::StrCat(TrainingFingerprint(spec_), data_.content_sha256, assets_.tokenizer_sha256, spec_.num_train_epochs(), "/",
                                spec_.max_steps(), "/", spec_.early_stopping_patience(), "/", spec_.load_best_model_at_end()));
}

// A rerun from a stage forgets that stage and what follows, once; training from its start also sets its checkpoints aside.
absl::Status Finetune::Begin() {
  FT_RETURN_IF_ERROR(MakeDirectories(artifacts_));
  if (plan_.from_stage() != v1::STAGE_UNSPECIFIED) {
    FT_RETURN_IF_ERROR(stages_.InvalidateFrom(plan_.from_stage()));
    if (plan_.from_stage() <= v1::TRAINING && plan_.from_checkpoint_step() < 0) {
      FT_RETURN_IF_ERROR(RemoveAll(plan_.job_dir() + "/checkpoints"));
    }
  } else if (plan_.from_checkpoint_step() >= 0) {
    FT_RETURN_IF_ERROR(stages_.InvalidateFrom(v1::TRAINING));
  }
  FT_ASSIGN_OR_RETURN(history_, History::Open(artifacts_ + "/metrics.jsonl", plan_.job_dir() + "/evaluations.jsonl"));
  reporter_.Log(v1::INFO, absl::StrFormat("attempt %d on %s, seed %d", plan_.attempt(), plan_.device(), spec_.seed()));
  return absl::OkStatus();
}

absl::Status Finetune::PreparingData() {
  return Stage(v1::PREPARING_DATA, v1::INVALID_DATA, [&]() -> absl::Status {
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
      TellProgress(v1::PREPARING_DATA, unit == "bytes" ? "bytes" : "records", done, total, "reading and tokenizing the data");
    };
    request.cancelled = [&] { return Stopping(); };
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
    return stages_.Commit(v1::PREPARING_DATA, data_.content_sha256, MessageToJson(data_.statistics));
  });
}

absl::Status Finetune::LoadingModel() {
  if (model_ != nullptr) return absl::OkStatus();
  auto emit_memory = [&](const char* point) {
    v1::JobEvent event;
    *event.mutable_memory() = TakeMemorySnapshot(point, at::Device(plan_.device()));
    reporter_.Emit(std::move(event));
  };
  FT_RETURN_IF_ERROR(Stage(v1::LOADING_MODEL, v1::UNSUPPORTED_MODEL, [&]() -> absl::Status {
    LoadOptions options;
    options.device = at::Device(plan_.device());
    emit_memory("baseline");
    options.compute_dtype = spec_.bf16().value() ? at::kBFloat16 : at::kFloat;
    options.load_in_4bit = spec_.quantization().load_in_4bit().value();
    options.quant_type = spec_.quantization().bnb_4bit_quant_type() == "fp4" ? QuantType::kFp4 : QuantType::kNf4;
    options.double_quant = spec_.quantization().bnb_4bit_use_double_quant();
    options.progress = [&](int64_t done, int64_t total, const std::string& text) {
      TellProgress(v1::LOADING_MODEL, "tensors", done, total, text);
    };
    model_ = LoadCausalLm(plan_.model_path(), options);
    model_->SetGradientCheckpointing(spec_.gradient_checkpointing().value());
    emit_memory("loaded");
    return absl::OkStatus();
  }));
  return Stage(v1::INJECTING_ADAPTERS, v1::INVALID_SPEC, [&]() -> absl::Status {
    adapters_ = plan_.adapter_path().empty() ? LoraAdapters::Inject(*model_, spec_.lora(), spec_.seed())
                                             : LoraAdapters::LoadPeft(*model_, plan_.adapter_path());
    reporter_.Log(v1::INFO, absl::StrFormat("%d adapter tensors, %d trainable parameters", adapters_->parameters().size(),
                                            adapters_->trainable_parameters()));
    emit_memory("injected");
    return absl::OkStatus();
  });
}

absl::StatusOr<v1::EvaluationResult> Finetune::EvaluateAll(const char* name, v1::Stage stage) {
  EvaluateOptions options;
  options.rows = spec_.per_device_eval_batch_size().value();
  options.max_seq_length = spec_.max_seq_length();
  options.all_tokens = true;
  options.progress = [&](int64_t done, int64_t total) {
    TellProgress(stage, "samples", done, total, absl::StrCat("loss of the ", name, " model on the validation samples"));
  };
  options.cancelled = [&] { return Stopping(); };
  v1::EvaluationResult result = EvaluateLoss(*model_, *data_.validation, options);
  result.set_model(name);
  return result;
}

absl::StatusOr<std::vector<std::string>> Finetune::Answers(v1::Stage stage, const char* who) {
  std::vector<std::string> answers;
  if (assets_.chat_template == nullptr || data_.references.empty()) return answers;
  std::vector<std::vector<int32_t>> prompts;
  for (const ReferenceSample& sample : data_.references) {
    RenderOptions render;
    render.add_generation_prompt = true;
    render.bos_token = assets_.bos_token;
    render.eos_token = assets_.eos_token;
    render.pad_token = assets_.pad_token;
    render.unk_token = assets_.unk_token;
    render.now = absl::FromUnixSeconds(plan_.submit_time_unix());
    FT_ASSIGN_OR_RETURN(const RenderedChat chat, assets_.chat_template->Render(MessagesJson(sample.prompt), render));
    prompts.push_back(assets_.tokenizer->Encode(chat.text, /*add_special_tokens=*/false));
    const auto bos = assets_.tokenizer->TokenToId(assets_.bos_token);
    if (assets_.tokenizer_adds_bos && bos.has_value() && (prompts.back().empty() || prompts.back().front() != *bos)) {
      prompts.back().insert(prompts.back().begin(), *bos);
    }
  }
  GenerateOptions options;
  options.settings = spec_.evaluation().generation();
  options.stop_token_ids = assets_.stop_token_ids;
  options.seed = spec_.seed();
  options.progress = [&](int64_t done, int64_t total) {
    TellProgress(stage, "tokens", done, total, absl::StrCat("sample answers of the ", who, " model"));
  };
  options.cancelled = [&] { return Stopping(); };
  for (const auto& ids : Generate(*model_, prompts, options)) {
    answers.push_back(assets_.tokenizer->Decode(ids, /*skip_special_tokens=*/true));
  }
  return answers;
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
  if (!stages_.Result(v1::EVALUATING_BASE, inputs).has_value()) FT_RETURN_IF_ERROR(LoadingModel());
  return DurableStage(v1::EVALUATING_BASE, v1::EVALUATION_FAILED, inputs, take, [&]() -> absl::StatusOr<json> {
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
    return MessageFromJson(stored.at("result"), &result_);
  };
  const std::string inputs = TrainingInputs();
  if (!stages_.Result(v1::TRAINING, inputs).has_value()) FT_RETURN_IF_ERROR(LoadingModel());
  return DurableStage(v1::TRAINING, v1::INTERNAL, inputs, restore, [&]() -> absl::StatusOr<json> {
    FT_RETURN_IF_ERROR(LoadingModel());
    stage_ = v1::TRAINING;
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
    train_outcome_ = trained.outcome;
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
  const bool done = stages_.Result(v1::EVALUATING, inputs).has_value();
  if (!done && model_ == nullptr) {
    FT_RETURN_IF_ERROR(LoadingModel());
    // The adapter of an earlier attempt takes the place of the fresh one.
    FT_RETURN_IF_ERROR(CatchAsStatus(v1::EVALUATION_FAILED, [&] {
      adapters_ = LoraAdapters::LoadPeft(*model_, artifacts_ + "/adapter");
      return absl::OkStatus();
    }));
  }
  return DurableStage(v1::EVALUATING, v1::EVALUATION_FAILED, inputs, take, [&]() -> absl::StatusOr<json> {
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

absl::Status Finetune::Finish() {
  result_.set_verdict(JobVerdict(result_, /*exports=*/{}));
  const DeviceMemory memory = ReadDeviceMemory(at::Device(plan_.device()));
  result_.set_peak_device_bytes(memory.peak_allocated);
  result_.set_peak_host_bytes(HostPeakRssBytes());
  result_.set_predicted_peak_bytes(plan_.predicted_peak_bytes());
  FT_RETURN_IF_ERROR(WriteFileAtomic(artifacts_ + "/summary.json", MessageToJson(result_).dump(1)));
  const std::map<std::string, std::string> kinds = {{"adapter", "adapter"}, {"summary.json", "summary"}, {"metrics.jsonl", "metrics"}, {"quarantine", "quarantine"}};
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(artifacts_)) {
    if (entry.is_regular_file()) paths.push_back(fs::relative(entry.path(), artifacts_).string());
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) {
    const auto kind = kinds.find(path.substr(0, path.find('/')));
    if (kind == kinds.end()) continue;
    v1::Artifact& artifact = *result_.add_artifacts();
    artifact.set_path(path);
    artifact.set_kind(kind->second);
    artifact.set_size_bytes(fs::file_size(artifacts_ + "/" + path));
    FT_ASSIGN_OR_RETURN(*artifact.mutable_sha256(), Sha256File(artifacts_ + "/" + path));
    v1::JobEvent event;
    *event.mutable_artifact() = artifact;
    reporter_.Emit(std::move(event));
  }
  return absl::OkStatus();
}

absl::Status Finetune::RunStages() {
  FT_RETURN_IF_ERROR(Begin());
  FT_RETURN_IF_ERROR(PreparingData());
  FT_RETURN_IF_ERROR(EvaluatingBase());
  FT_RETURN_IF_ERROR(Training());
  FT_RETURN_IF_ERROR(Evaluating());
  return Finish();
}

v1::AttemptEnd Finetune::Run() {
  v1::AttemptEnd end;
  const absl::Status status = CatchAsStatus(v1::INTERNAL, [&] { return RunStages(); });
  if (status.ok()) {
    end.set_outcome(v1::AttemptEnd::SUCCEEDED);
    *end.mutable_result() = result_;
    return end;
  }
  switch (reporter_.stop_requested()) {
    case StopRequest::kCancel:
      end.set_outcome(v1::AttemptEnd::CANCELLED);
      return end;
    case StopRequest::kPause:
      end.set_outcome(v1::AttemptEnd::PAUSED);
      return end;
    default:
      break;
  }
  end.set_outcome(v1::AttemptEnd::FAILED);
  *end.mutable_failure() = FailureOf(status, v1::INTERNAL);
  if (reporter_.stop_requested() == StopRequest::kTimeout) {
    end.mutable_failure()->set_reason(v1::TIMEOUT);
    end.mutable_failure()->set_message("max_runtime is over; a checkpoint was written first");
    end.mutable_failure()->add_suggestions("max_runtime=null");
  } else if (stage_ == v1::PREPARING_DATA && end.failure().reason() == v1::INTERNAL) {
    end.mutable_failure()->set_reason(absl::IsInvalidArgument(status) ? v1::INVALID_SPEC : v1::INVALID_DATA);
  } else if (stage_ == v1::EVALUATING || stage_ == v1::EVALUATING_BASE) {
    if (end.failure().reason() == v1::INTERNAL) end.mutable_failure()->set_reason(v1::EVALUATION_FAILED);
  }
  end.mutable_failure()->set_stage(stage_);
  *end.mutable_result() = result_;
  return end;
}

}  // namespace

v1::AttemptEnd RunFinetune(const v1::AttemptPlan& plan, Reporter& reporter) { return Finetune(plan, reporter).Run(); }

}  // namespace finetuned
