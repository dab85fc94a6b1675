#include "server/self_check.h"

#include <unistd.h>

#include <filesystem>
#include <future>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "finetuned/v1/worker.pb.h"
#include "proto/base/file_util.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
using Verdict = CheckResult::Verdict;

std::string Gib(uint64_t bytes) {
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / (1 << 30));
}

CheckResult CheckDataDir(const Config& config) {
  CheckResult result{Verdict::kError, "data-dir", config.data_dir, ""};
  std::error_code error;
  // The nearest directory that is there: it must let us make the rest.
  fs::path there = config.data_dir;
  while (!fs::exists(there, error) && there.has_parent_path() && there != there.parent_path())
    there = there.parent_path();
  if (!fs::is_directory(there, error)) {
    absl::StrAppend(&result.text, ": ", there.string(), " is no directory");
    result.cure = "choose another with --data-dir";
    return result;
  }
  const std::string probe = absl::StrCat(there.string(), "/.finetuned-check-", getpid());
  if (absl::Status status = WriteFileAtomic(probe, "probe"); !status.ok()) {
    absl::StrAppend(&result.text, ": cannot be written: ", std::string(status.message()));
    result.cure = absl::StrCat("make ", there.string(), " writable for uid ", geteuid(),
                               ", or choose another with --data-dir");
    return result;
  }
  fs::remove(probe, error);
  const auto free = FreeDiskBytes(there.string());
  const uint64_t reserve = static_cast<uint64_t>(config.min_free_disk_mib) << 20;
  if (!free.ok() || *free <= reserve) {
    absl::StrAppend(&result.text, ": ",
                    free.ok() ? Gib(*free) : std::string(free.status().message()), " free, ",
                    Gib(reserve), " are kept free: no job would start");
    result.cure = "make room, or lower --min-free-disk-mib";
    return result;
  }
  absl::StrAppend(&result.text, there == config.data_dir ? ": writable, " : ": will be made, ",
                  Gib(*free), " free");
  result.verdict = Verdict::kOk;
  return result;
}

void CheckRoots(const std::string& option, const std::vector<std::string>& roots,
                const std::string& what, std::vector<CheckResult>* results) {
  if (roots.empty()) {
    results->push_back({Verdict::kWarning, option, absl::StrCat("none: jobs cannot name ", what),
                        absl::StrCat("name a directory with --", option)});
    return;
  }
  for (const std::string& root : roots) {
    std::error_code error;
    CheckResult result{Verdict::kOk, option, root, ""};
    if (!fs::is_directory(root, error)) {
      result = {Verdict::kError, option, absl::StrCat(root, ": no such directory"),
                "make it, or correct the path"};
    } else if (access(root.c_str(), R_OK | X_OK) != 0) {
      result = {Verdict::kError, option, absl::StrCat(root, ": not readable for uid ", geteuid()),
                "change its permissions"};
    }
    results->push_back(std::move(result));
  }
}

void CheckWorker(const Config& config, Launcher& launcher, std::vector<CheckResult>* results) {
  if (access(config.worker.c_str(), X_OK) != 0) {
    results->push_back({Verdict::kError, "worker",
                        absl::StrCat(config.worker, ": not there, or not executable"),
                        "name finetune-worker with --worker"});
    return;
  }
  v1::QueryRequest request;
  request.set_kind(v1::QueryRequest::DEVICES);
  std::promise<absl::StatusOr<std::string>> promise;
  launcher.Query(request.SerializeAsString(), absl::Minutes(1),
                 [&](absl::StatusOr<std::string> answer) { promise.set_value(std::move(answer)); });
  const absl::StatusOr<std::string> answer = promise.get_future().get();
  v1::QueryResponse response;
  if (!answer.ok() || !response.ParseFromString(*answer)) {
    results->push_back({Verdict::kError, "worker",
                        absl::StrCat(config.worker, ": does not answer: ",
                                     answer.ok() ? "its answer cannot be read"
                                                 : std::string(answer.status().message())),
                        "run it by hand; a missing library or a wrong build shows there"});
    return;
  }
  results->push_back({Verdict::kOk, "worker", config.worker, ""});
  bool gpu = false;
  for (const v1::Device& device : response.devices()) {
    if (device.id() == "cpu") continue;
    gpu = gpu || device.usable();
    const std::string text =
        absl::StrCat(device.id(), ": ", device.name(), ", ", Gib(device.total_bytes()),
                     ", capability ", device.compute_capability(), ", driver ", device.driver());
    if (device.usable())
      results->push_back({Verdict::kOk, "gpu", text, ""});
    else
      results->push_back({Verdict::kWarning, "gpu", absl::StrCat(text, ": ", device.reason()),
                          "jobs do not use it"});
  }
  if (!gpu)
    results->push_back({Verdict::kWarning, "gpu", "no usable GPU",
                        "jobs run on the CPU, or install the NVIDIA driver"});
}

}  // namespace

std::vector<CheckResult> CheckServer(const Config& config, Launcher& launcher) {
  std::vector<CheckResult> results;
  results.push_back(
      {Verdict::kOk, "config",
       config.config.empty() ? "no file; flags, environment and defaults" : config.config, ""});
  results.push_back(CheckDataDir(config));
  CheckRoots("model-root", config.model_roots, "a base model", &results);
  CheckRoots("data-root", config.data_roots, "a dataset but an uploaded one", &results);
  CheckWorker(config, launcher, &results);
  return results;
}

std::string FormatCheck(const std::vector<CheckResult>& results) {
  std::string out;
  for (const CheckResult& result : results) {
    const char* word = result.verdict == Verdict::kOk        ? "ok   "
                       : result.verdict == Verdict::kWarning ? "warn "
                                                             : "ERROR";
    absl::StrAppendFormat(&out, "%s  %-11s %s\n", word, result.subject, result.text);
    if (!result.cure.empty()) absl::StrAppendFormat(&out, "%20s%s\n", "", result.cure);
  }
  return out;
}

bool Passed(const std::vector<CheckResult>& results) {
  for (const CheckResult& result : results)
    if (result.verdict == Verdict::kError) return false;
  return true;
}

}  // namespace finetuned
