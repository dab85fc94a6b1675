#include "worker/checkpoint/checkpoint.h"

#include <algorithm>
#include <ctime>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/util/json_util.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "worker/models/safetensors.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kFormat = 1;
constexpr char kPrefix[] = "step-";

std::string DirectoryName(int64_t step) { return absl::StrFormat("%s%08d", kPrefix, step); }

void WriteTensors(const std::string& path, const std::vector<NamedTensor>& tensors) {
  std::vector<SafetensorsWriter::Declared> declared;
  for (const NamedTensor& entry : tensors) {
    declared.push_back({entry.name, entry.tensor.scalar_type(), entry.tensor.sizes().vec()});
  }
  SafetensorsWriter writer(path, declared, {{"format", "pt"}});
  for (const NamedTensor& entry : tensors) writer.Write(entry.name, entry.tensor);
  writer.Finish();
}

std::vector<NamedTensor> ReadTensors(const std::string& path) {
  const auto file = SafetensorsFile::Open(path);
  std::vector<NamedTensor> tensors;
  for (const auto& [name, entry] : file->entries()) tensors.push_back({name, file->Tensor(name).clone()});
  return tensors;
}

std::vector<NamedTensor> ToHost(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> host;
  host.reserve(tensors.size());
  for (const NamedTensor& entry : tensors) {
    host.push_back({entry.name, entry.tensor.detach().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true)});
  }
  return host;
}

absl::StatusOr<json> ReadJson(const std::string& path) {
  FT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return absl::DataLossError(absl::StrCat(path, " is not JSON"));
  return parsed;
}

// Everything but the rename. Tensor code throws; the caller turns that into a Status.
absl::StatusOr<v1::Checkpoint> WriteDirectory(const std::string& temporary, const CheckpointContents& contents,
                                              const std::string& reason, bool is_best) {
  FT_RETURN_IF_ERROR(RemoveAll(temporary));
  FT_RETURN_IF_ERROR(MakeDirectories(temporary + "/adapter"));
  WriteTensors(temporary + "/adapter/adapter_model.safetensors", contents.adapter);
  FT_RETURN_IF_ERROR(WriteFileAtomic(temporary + "/adapter/adapter_config.json", contents.adapter_config_json));
  WriteTensors(temporary + "/optimizer.safetensors", contents.optimizer);
  FT_RETURN_IF_ERROR(WriteFileAtomic(temporary + "/state.json", ToJson(contents.state).dump(1)));
  std::string spec_json;
  google::protobuf::util::JsonPrintOptions print;
  print.preserve_proto_field_names = true;
  if (!google::protobuf::util::MessageToJsonString(contents.spec, &spec_json, print).ok()) {
    return absl::InternalError("cannot print the spec as JSON");
  }
  FT_RETURN_IF_ERROR(WriteFileAtomic(temporary + "/spec.json", spec_json));
  FT_RETURN_IF_ERROR(WriteFileAtomic(temporary + "/environment.json", contents.environment.dump(1)));

  v1::Checkpoint entry;
  json files = json::object();
  for (const char* name : {"adapter/adapter_model.safetensors", "adapter/adapter_config.json",
                           "optimizer.safetensors", "state.json", "spec.json", "environment.json"}) {
    const std::string path = absl::StrCat(temporary, "/", name);
    FT_ASSIGN_OR_RETURN(const std::string sum, Sha256File(path));
    const uint64_t bytes = fs::file_size(path);
    files[name] = {{"bytes", bytes}, {"sha256", sum}};
    (*entry.mutable_bytes_by_part())[fs::path(name).stem().string()] += bytes;
  }
  const int64_t now = std::time(nullptr);
  const json manifest = {{"format", kFormat},   {"step", contents.state.step}, {"reason", reason},
                         {"is_best", is_best},  {"time_unix", now},            {"files", files}};
  FT_RETURN_IF_ERROR(WriteFileAtomic(temporary + "/manifest.json", manifest.dump(1)));
  FT_RETURN_IF_ERROR(SyncPath(temporary + "/adapter"));
  FT_RETURN_IF_ERROR(SyncPath(temporary));

  entry.set_step(contents.state.step);
  entry.set_epoch(contents.state.epoch);
  if (!contents.state.eval_history.empty() && contents.state.eval_history.back().first == contents.state.step) {
    entry.set_has_eval_loss(true);
    entry.set_eval_loss(contents.state.eval_history.back().second);
  }
  entry.set_is_best(is_best);
  entry.mutable_time()->set_seconds(now);
  entry.set_spec_sha256(contents.state.spec_sha256);
  entry.set_base_model_sha256(absl::StrFormat("%016x", contents.state.base_checksum));
  entry.set_reason(reason);
  return entry;
}

// Sums of every file against the manifest.
absl::Status Verify(const std::string& path) {
  FT_ASSIGN_OR_RETURN(const json manifest, ReadJson(path + "/manifest.json"));
  if (!manifest.is_object() || !manifest.contains("files") || !manifest["files"].is_object()) {
    return absl::DataLossError(absl::StrCat(path, "/manifest.json has no list of files"));
  }
  if (manifest.value("format", 0) != kFormat) {
    return absl::FailedPreconditionError(absl::StrCat(path, " has format ", manifest.value("format", 0),
                                                      "; this build reads format ", kFormat));
  }
  for (const auto& [name, facts] : manifest["files"].items()) {
    FT_ASSIGN_OR_RETURN(const std::string sum, Sha256File(absl::StrCat(path, "/", name)));
    if (!facts.is_object() || sum != facts.value("sha256", "")) {
      return absl::DataLossError(absl::StrCat(path, "/", name, " does not match its SHA-256 in the manifest"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<CheckpointContents> Read(const std::string& path) {
  FT_RETURN_IF_ERROR(Verify(path));
  CheckpointContents contents;
  FT_ASSIGN_OR_RETURN(const json state, ReadJson(path + "/state.json"));
  FT_ASSIGN_OR_RETURN(contents.state, TrainingStateFromJson(state));
  FT_ASSIGN_OR_RETURN(contents.environment, ReadJson(path + "/environment.json"));
  FT_ASSIGN_OR_RETURN(const std::string spec_json, ReadFile(path + "/spec.json"));
  if (!google::protobuf::util::JsonStringToMessage(spec_json, &contents.spec).ok()) {
    return absl::DataLossError(absl::StrCat(path, "/spec.json is not a job"));
  }
  FT_ASSIGN_OR_RETURN(contents.adapter_config_json, ReadFile(path + "/adapter/adapter_config.json"));
  try {
    contents.adapter = ReadTensors(path + "/adapter/adapter_model.safetensors");
    contents.optimizer = ReadTensors(path + "/optimizer.safetensors");
  } catch (const std::exception& error) {
    return absl::DataLossError(error.what());
  }
  return contents;
}

// Steps with a directory of their own, rising.
std::vector<int64_t> Steps(const std::string& directory) {
  std::vector<int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    if (absl::StartsWith(name, kPrefix) && absl::SimpleAtoi(name.substr(sizeof(kPrefix) - 1), &step)) {
      steps.push_back(step);
    }
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

}  // namespace

CheckpointStore::CheckpointStore(std::string directory, int64_t keep_newest,
                                 std::function<void(v1::Level, std::string)> log)
    : directory_(std::move(directory)), keep_newest_(keep_newest), log_(std::move(log)) {}

CheckpointStore::~CheckpointStore() {
  if (writer_.joinable()) writer_.join();
}

std::string CheckpointStore::PathOf(int64_t step) const {
  return absl::StrCat(directory_, "/", DirectoryName(step));
}

absl::Status CheckpointStore::Wait() {
  if (writer_.joinable()) writer_.join();
  return last_status_;
}

void CheckpointStore::Save(const CheckpointContents& contents, const std::string& reason, bool is_best,
                           std::function<void(const absl::StatusOr<v1::Checkpoint>&)> done) {
  Wait().IgnoreError();  // its `done` has told
  auto snapshot = std::make_shared<CheckpointContents>(contents);
  snapshot->adapter = ToHost(contents.adapter);
  snapshot->optimizer = ToHost(contents.optimizer);
  writer_ = std::thread([this, snapshot, reason, is_best, done = std::move(done)] {
    const int64_t step = snapshot->state.step;
    const std::string temporary = absl::StrCat(directory_, "/.", DirectoryName(step), ".tmp");
    absl::StatusOr<v1::Checkpoint> result = [&]() -> absl::StatusOr<v1::Checkpoint> {
      try {
        FT_RETURN_IF_ERROR(MakeDirectories(directory_));
        FT_ASSIGN_OR_RETURN(v1::Checkpoint entry, WriteDirectory(temporary, *snapshot, reason, is_best));
        // Read back what the disk has before an older checkpoint may go.
        FT_RETURN_IF_ERROR(Verify(temporary));
        entry.set_verified(true);
        FT_RETURN_IF_ERROR(RemoveAll(PathOf(step)));
        FT_RETURN_IF_ERROR(RenameDurable(temporary, PathOf(step)));
        return entry;
      } catch (const std::exception& error) {
        return absl::UnavailableError(absl::StrCat("checkpoint at step ", step, ": ", error.what()));
      }
    }();
    if (result.ok()) {
      Prune(snapshot->state.has_best ? snapshot->state.best_step : -1);
    } else {
      RemoveAll(temporary).IgnoreError();
    }
    last_status_ = result.status();
    done(result);
  });
}

void CheckpointStore::Prune(int64_t best_step) {
  std::vector<int64_t> steps = Steps(directory_);
  const int64_t surplus = static_cast<int64_t>(steps.size()) - keep_newest_;
  for (int64_t i = 0; i < surplus; ++i) {
    const int64_t step = steps[static_cast<size_t>(i)];
    if (step == best_step) continue;
    if (absl::Status status = RemoveAll(PathOf(step)); !status.ok()) {
      log_(v1::WARNING, absl::StrCat("cannot remove an old checkpoint: ", std::string(status.message())));
    }
  }
}

absl::StatusOr<std::optional<CheckpointContents>> CheckpointStore::Load(int64_t step) {
  std::vector<int64_t> steps = Steps(directory_);
  if (step >= 0) {
    if (!std::binary_search(steps.begin(), steps.end(), step)) {
      std::string known;
      for (int64_t there : steps) absl::StrAppend(&known, known.empty() ? "" : ", ", there);
      return absl::NotFoundError(absl::StrCat("no checkpoint at step ", step, "; there are: ",
                                              known.empty() ? "none" : known));
    }
    FT_ASSIGN_OR_RETURN(CheckpointContents contents, Read(PathOf(step)));
    return contents;
  }
  for (auto it = steps.rbegin(); it != steps.rend(); ++it) {
    absl::StatusOr<CheckpointContents> contents = Read(PathOf(*it));
    if (contents.ok()) return std::move(contents).value();
    if (absl::IsFailedPrecondition(contents.status())) return contents.status();
    const std::string aside = absl::StrCat(directory_, "/corrupt-", DirectoryName(*it));
    log_(v1::WARNING, absl::StrCat("checkpoint at step ", *it, " is damaged (", std::string(contents.status().message()),
                                   "); set aside as ", aside, ", the one before it is used"));
    RemoveAll(aside).IgnoreError();
    FT_RETURN_IF_ERROR(RenameDurable(PathOf(*it), aside));
  }
  return std::nullopt;
}

std::vector<v1::Checkpoint> CheckpointStore::List() const {
  std::vector<v1::Checkpoint> checkpoints;
  for (int64_t step : Steps(directory_)) {
    absl::StatusOr<json> manifest = ReadJson(PathOf(step) + "/manifest.json");
    if (!manifest.ok() || !manifest->is_object()) continue;
    v1::Checkpoint& entry = checkpoints.emplace_back();
    entry.set_step(step);
    entry.set_is_best(manifest->value("is_best", false));
    entry.set_reason(manifest->value("reason", ""));
    entry.mutable_time()->set_seconds(manifest->value("time_unix", int64_t{0}));
  }
  return checkpoints;
}

}  // namespace finetuned
