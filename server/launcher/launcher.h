// Launcher: where a worker process runs. LocalLauncher starts it on this machine; a Slurm launcher
// stands behind the same interface later.
//
// Threads: every method may be called from any thread; callbacks must not block.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/launcher/process_runner.h"

namespace finetuned {

struct LaunchRequest {
  std::string job_id;
  int32_t attempt = 0;
  std::string token;        // secret; given in the environment, never on the command line
  std::string attempt_dir;  // <data_dir>/jobs/<job_id>/attempt-<n>; exists; worker.log goes there
  std::string plan_path;    // AttemptPlan as binary proto
  std::string device;       // "cpu", "cuda:0"
};

class Launcher {
 public:
  virtual ~Launcher() = default;
  // Starts `finetune-worker run`. An error means that nothing was started.
  virtual absl::StatusOr<ProcessId> Launch(const LaunchRequest& request) = 0;
  virtual bool IsAlive(const ProcessId& worker) = 0;
  // NOT_FOUND when it has ended.
  virtual absl::Status Kill(const ProcessId& worker, int signal) = 0;
  // As ProcessRunner::Watch.
  virtual void Watch(const ProcessId& worker, std::function<void(ProcessExit)> on_exit) = 0;
  // `finetune-worker query`: a serialized QueryRequest in, a serialized QueryResponse out. Errors
  // as of ProcessRunner::RunQuery; a process that fails is INTERNAL with its exit and the tail of
  // its standard error.
  virtual void Query(std::string request, absl::Duration timeout,
                     std::function<void(absl::StatusOr<std::string>)> done) = 0;
};

struct LocalLauncherOptions {
  std::string worker_path;  // finetune-worker
  std::string socket_path;  // unix socket of the server's WorkerService
  // Names of variables passed on from the server's environment; usually WorkerEnvironment().
  std::vector<std::string> environment;
  int worker_oom_score_adj = 500;  // workers die before the server
};

// Locale, search paths, threads and GPU selection; no secrets.
const std::vector<std::string>& WorkerEnvironment();

class LocalLauncher : public Launcher {
 public:
  // `runner` is not owned and outlives the launcher.
  LocalLauncher(ProcessRunner* runner, LocalLauncherOptions options);

  absl::StatusOr<ProcessId> Launch(const LaunchRequest& request) override;
  bool IsAlive(const ProcessId& worker) override;
  absl::Status Kill(const ProcessId& worker, int signal) override;
  void Watch(const ProcessId& worker, std::function<void(ProcessExit)> on_exit) override;
  void Query(std::string request, absl::Duration timeout,
             std::function<void(absl::StatusOr<std::string>)> done) override;

 private:
  std::vector<std::pair<std::string, std::string>> Environment() const;

  ProcessRunner* const runner_;
  const LocalLauncherOptions options_;
};

}  // namespace finetuned
