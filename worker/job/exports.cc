#include "worker/job/exports.h"

#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "worker/export/gguf.h"
#include "worker/export/merge.h"
#include "worker/job/failure.h"
#include "worker/models/model_summary.h"
#include "worker/monitor/memory.h"
#include "worker/planning/inference_memory.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Rounding to 16 bits usually moves logits by less than this.
constexpr double kNotedShift = 2e-2;

// Name below `root` → size of every file: enough to see that what a stage left is still whole.
json FileSizes(const std::string& root) {
  json sizes = json::object();
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(root, error)) {
    if (entry.is_regular_file()) sizes[fs::relative(entry.path(), root).string()] = entry.file_size();
  }
  return sizes;
}

at::ScalarType MergedDtype(const std::string& name) {
  return name == "float32" ? at::kFloat : name == "float16" ? at::kHalf : at::kBFloat16;
}

class Exporter {
 public:
  Exporter(StageRunner& run, const ExportInputs& inputs) : run_(run), inputs_(inputs), settings_(run.spec().export_()) {
    for (const std::string& format : settings_.formats()) {
      keep_merged_ |= format == "merged";
      gguf_ |= format == "gguf";
    }
    request_.base_dir = inputs.model_dir;
    request_.adapter_dir = inputs.adapter_dir;
    request_.output_dir = keep_merged_ ? run.artifacts() + "/merged" : WorkDir() + "/merged";
    request_.dtype = MergedDtype(settings_.merged_dtype());
    request_.dequantized_base = settings_.merge_base() == "dequantized";
    request_.quant_type = run.spec().quantization().bnb_4bit_quant_type() == "fp4" ? QuantType::kFp4 : QuantType::kNf4;
    request_.double_quant = run.spec().quantization().bnb_4bit_use_double_quant();
    request_.provenance = inputs.provenance;
    merge_inputs_ = Sha256Hex(absl::StrCat(inputs.adapter_sha256, "|", inputs.model_dir, "|", settings_.merged_dtype(), "|",
                                           settings_.merge_base(), "|", run.spec().quantization().SerializeAsString(), "|",
                                           keep_merged_));
    gguf_inputs_ = Sha256Hex(absl::StrCat(merge_inputs_, "|", absl::StrJoin(settings_.gguf_types(), ",")));
  }

  absl::Status Run() {
    // A rerun may ask for fewer formats than the attempt before it.
    if (!keep_merged_) FT_RETURN_IF_ERROR(RemoveAll(run_.artifacts() + "/merged"));
    if (!gguf_) FT_RETURN_IF_ERROR(RemoveAll(GgufDir()));
    if (!keep_merged_ && !gguf_) return absl::OkStatus();
    // The merged model is needed for itself, or because a GGUF is still to be made from it.
    if (keep_merged_ || !GgufIsThere()) FT_RETURN_IF_ERROR(Merging());
    if (gguf_) FT_RETURN_IF_ERROR(Exporting());
    RemoveAll(WorkDir()).IgnoreError();
    return absl::OkStatus();
  }

 private:
  std::string WorkDir() const { return run_.plan().job_dir() + "/work"; }
  std::string GgufDir() const { return run_.artifacts() + "/gguf"; }

  bool GgufIsThere() const {
    const auto done = run_.stages().Result(v1::EXPORTING, gguf_inputs_);
    return gguf_ && done.has_value() && done->value("files", json()) == FileSizes(GgufDir());
  }

  void Verified(const std::string& name, const json& proof) {
    v1::VerifiedExport& entry = *run_.result().add_exports();
    entry.set_name(name);
    entry.set_proof(proof.get<std::string>());
  }

  absl::Status Merging() {
    auto take = [&](const json& stored) -> absl::Status {
      if (stored.at("files") != FileSizes(request_.output_dir)) return absl::DataLossError("the merged model has changed");
      if (keep_merged_) Verified("merged", stored.at("proof"));
      return absl::OkStatus();
    };
    return run_.RunDurable(v1::MERGING, v1::EXPORT_FAILED, merge_inputs_, take, [&]() -> absl::StatusOr<json> {
      FT_RETURN_IF_ERROR(MakeDirectories(fs::path(request_.output_dir).parent_path()));
      ExportCallbacks callbacks;
      callbacks.progress = [&](int64_t done, int64_t total, const std::string& tensor) {
        run_.TellProgress(v1::MERGING, "tensors", done, total, absl::StrCat("merging ", tensor));
      };
      callbacks.cancelled = [&] { return run_.stopping(); };
      const MergeReport report = Merge(request_, callbacks);
      run_.TellProgress(v1::MERGING, "tensors", report.tensors, report.tensors, "comparing the merged model with base and adapter");
      const MergeCheck check = CheckMerged(request_, inputs_.prompts, CheckDevice());
      if (!check.passed) {
        return Aside(request_.output_dir, v1::MERGE_MISMATCH, absl::StrCat("the merged model is not base and adapter: ", check.detail), {});
      }
      std::string proof = absl::StrCat("every tensor read back equal to base and adapter in ", settings_.merged_dtype());
      if (check.compared_logits) {
        absl::StrAppend(&proof, absl::StrFormat("; logits of the merge within %.1e (%.0e allowed)", check.merge_error, kMergeTolerance));
        if (check.rounding_shift > 0) {
          absl::StrAppend(&proof, absl::StrFormat(", %.1e of their norm away once rounded to %s", check.rounding_shift, settings_.merged_dtype()));
        }
        if (check.rounding_shift > kNotedShift) {
          run_.reporter().Log(v1::WARNING, absl::StrFormat("rounding the merged weights to %s moves the logits by %.1e of their norm; "
                                                           "export.merged_dtype=float32 keeps them", settings_.merged_dtype(), check.rounding_shift));
        }
      } else {
        absl::StrAppend(&proof, "; logits not compared: a whole fp32 model does not fit beside what is planned");
      }
      const json stored = {{"files", FileSizes(request_.output_dir)}, {"proof", proof}};
      FT_RETURN_IF_ERROR(take(stored));
      run_.reporter().Log(v1::INFO, absl::StrFormat("merged %d modules into %d tensors, %.2f GB; %s", report.merged_modules,
                                                    report.tensors, static_cast<double>(report.bytes) / 1e9,
                                                    proof));
      return stored;
    });
  }

  // Where the logits are compared: on the job's device if the check fits into what was planned for it, else on the host if
  // it fits there.
  std::optional<at::Device> CheckDevice() const {
    const v1::AttemptPlan& plan = run_.plan();
    const uint64_t needed = MergeCheckMemory(plan.spec(), InspectModelDir(inputs_.model_dir), {.id = plan.device(), .cuda = plan.device() != "cpu"})
                                .device_peak_bytes();
    if (needed <= plan.planned_bytes()) return at::Device(plan.device());
    if (plan.device() != "cpu" && needed <= ReadDeviceMemory(at::kCPU).free / 2) return at::Device(at::kCPU);
    return std::nullopt;
  }

  absl::Status Exporting() {
    auto take = [&](const json& stored) -> absl::Status {
      if (stored.at("files") != FileSizes(GgufDir())) return absl::DataLossError("a GGUF file has changed");
      for (const auto& [name, proof] : stored.at("proofs").items()) Verified(name, proof);
      return absl::OkStatus();
    };
    return run_.RunDurable(v1::EXPORTING, v1::EXPORT_FAILED, gguf_inputs_, take, [&]() -> absl::StatusOr<json> {
      FT_RETURN_IF_ERROR(RemoveAll(GgufDir()));
      FT_RETURN_IF_ERROR(MakeDirectories(GgufDir()));
      json proofs = json::object();
      for (const std::string& type : settings_.gguf_types()) {
        FT_ASSIGN_OR_RETURN(proofs[absl::StrCat("gguf ", type)], WriteOne(type));
      }
      const json stored = {{"files", FileSizes(GgufDir())}, {"proofs", proofs}};
      FT_RETURN_IF_ERROR(take(stored));
      return stored;
    });
  }

  // → its proof.
  absl::StatusOr<std::string> WriteOne(const std::string& type) {
    GgufRequest request;
    request.model_dir = request_.output_dir;
    request.output_path = absl::StrCat(GgufDir(), "/model-", type, ".gguf");
    FT_ASSIGN_OR_RETURN(request.type, ParseGgufType(type));
    request.provenance = inputs_.provenance;
    FT_ASSIGN_OR_RETURN(const GgufReport report,
                        WriteGguf(
                            request,
                            [&](int64_t done, int64_t total, const std::string& tensor) {
                              run_.TellProgress(v1::EXPORTING, "tensors", done, total, absl::StrCat("writing ", tensor, " as ", type));
                            },
                            [&] { return run_.stopping(); }));
    for (const std::string& note : report.notes) run_.reporter().Log(v1::WARNING, absl::StrCat("gguf ", type, ": ", note));
    const absl::StatusOr<GgufCheck> checked = CheckGguf(request);
    if (!checked.ok()) {
      return Aside(request.output_path, v1::EXPORT_FAILED, absl::StrCat("the GGUF file differs from the merged model: ", checked.status().message()), {});
    }
    const std::string proof = absl::StrFormat("read back: %d tensors within %.1e of the merged model", checked->tensors, checked->max_relative_error);
    run_.reporter().Log(v1::INFO, absl::StrFormat("gguf %s, %.2f GB; %s", type, static_cast<double>(report.bytes) / 1e9, proof));
    return proof;
  }

  // What failed its check must not be taken for a result, but somebody will want to look at it.
  absl::Status Aside(const std::string& path, v1::FailureReason reason, const std::string& message, std::vector<std::string> suggestions) {
    const std::string kept = absl::StrCat(run_.plan().job_dir(), "/failed-exports");
    const std::string name = fs::path(path).filename();
    FT_RETURN_IF_ERROR(MakeDirectories(kept));
    FT_RETURN_IF_ERROR(RemoveAll(absl::StrCat(kept, "/", name)));
    FT_RETURN_IF_ERROR(RenameDurable(path, absl::StrCat(kept, "/", name)));
    return FailureStatus(reason, absl::StrCat(message, "; kept as failed-exports/", name, " in the job's directory"), "", std::move(suggestions));
  }

  StageRunner& run_;
  const ExportInputs& inputs_;
  const v1::Export& settings_;
  bool keep_merged_ = false, gguf_ = false;
  MergeRequest request_;
  std::string merge_inputs_, gguf_inputs_;
};

}  // namespace

absl::Status WriteExports(StageRunner& run, const ExportInputs& inputs) {
  return Exporter(run, inputs).Run();
}

}  // namespace finetuned
