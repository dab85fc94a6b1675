#include "server/launcher/launcher.h"

#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace finetuned {

const std::vector<std::string>& WorkerEnvironment() {
  static const auto* names = new std::vector<std::string>{"PATH",
                                                          "HOME",
                                                          "LANG",
                                                          "LC_ALL",
                                                          "LC_CTYPE",
                                                          "TZ",
                                                          "TMPDIR",
                                                          "LD_LIBRARY_PATH",
                                                          "OMP_NUM_THREADS",
                                                          "MKL_NUM_THREADS",
                                                          "CUDA_VISIBLE_DEVICES",
                                                          "CUDA_DEVICE_ORDER",
                                                          "NVIDIA_VISIBLE_DEVICES",
                                                          "NVIDIA_DRIVER_CAPABILITIES"};
  return *names;
}

LocalLauncher::LocalLauncher(ProcessRunner* runner, LocalLauncherOptions options)
    : runner_(runner), options_(std::move(options)) {}

std::vector<std::pair<std::string, std::string>> LocalLauncher::Environment() const {
  std::vector<std::pair<std::string, std::string>> variables;
  for (const std::string& name : options_.environment) {
    if (const char* value = std::getenv(name.c_str())) variables.emplace_back(name, value);
  }
  return variables;
}

absl::StatusOr<ProcessId> LocalLauncher::Launch(const LaunchRequest& request) {
  ProcessOptions process;
  process.argv = {options_.worker_path, "run"};
  process.environment = Environment();
  process.environment.emplace_back("FINETUNED_WORKER_SOCKET", options_.socket_path);
  process.environment.emplace_back("FINETUNED_ATTEMPT_TOKEN", request.token);
  process.environment.emplace_back("FINETUNED_PLAN", request.plan_path);
  process.working_directory = request.attempt_dir;
  process.log_path = absl::StrCat(request.attempt_dir, "/worker.log");
  process.oom_score_adj = options_.worker_oom_score_adj;
  return runner_->Start(process);
}

bool LocalLauncher::IsAlive(const ProcessId& worker) { return runner_->IsAlive(worker); }

absl::Status LocalLauncher::Kill(const ProcessId& worker, int signal) {
  return runner_->Kill(worker, signal);
}

void LocalLauncher::Watch(const ProcessId& worker, std::function<void(ProcessExit)> on_exit) {
  runner_->Watch(worker, std::move(on_exit));
}

void LocalLauncher::Query(std::string request, absl::Duration timeout,
                          std::function<void(absl::StatusOr<std::string>)> done) {
  QueryOptions query;
  query.process.argv = {options_.worker_path, "query"};
  query.process.environment = Environment();
  query.process.oom_score_adj = options_.worker_oom_score_adj;
  query.stdin_bytes = std::move(request);
  query.timeout = timeout;
  runner_->RunQuery(query, [done = std::move(done),
                            path = options_.worker_path](absl::StatusOr<QueryResult> result) {
    if (!result.ok()) return done(result.status());
    if (!result->exit.known || result->exit.exit_code != 0) {
      const std::string tail = ToUtf8(std::string(absl::StripAsciiWhitespace(result->stderr_tail)));
      return done(absl::InternalError(absl::StrCat(path, " query: ", result->exit.Describe(),
                                                   tail.empty() ? "" : "; it said: ", tail)));
    }
    done(std::move(result->stdout_bytes));
  });
}

}  // namespace finetuned
