// ProcessRunner on this machine. Processes are started by posix_spawn, which runs no fork handlers
// and no code of ours between fork and exec, so it is safe beside gRPC's threads.
#pragma once

#include <atomic>
#include <list>
#include <set>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/launcher/process_runner.h"

namespace finetuned {

// Destroying the runner ends running queries (their processes are killed) and leaves started
// processes alone.
class LocalProcessRunner : public ProcessRunner {
 public:
  LocalProcessRunner();
  ~LocalProcessRunner() override;

  absl::StatusOr<ProcessId> Start(const ProcessOptions& options) override;
  absl::Status Kill(const ProcessId& process, int signal) override;
  bool IsAlive(const ProcessId& process) override;
  void Watch(const ProcessId& process, std::function<void(ProcessExit)> on_exit) override;
  void RunQuery(const QueryOptions& options,
                std::function<void(absl::StatusOr<QueryResult>)> done) override;

 private:
  struct Watched {
    ProcessId process;
    int pidfd = -1;
    std::function<void(ProcessExit)> on_exit;
  };
  struct Query {
    std::thread thread;
    std::atomic<bool> finished = false;
  };

  void WatchLoop();
  // Status of a process that has ended; known only for one that this runner started.
  ProcessExit Collect(const ProcessId& process);
  void Wake();
  absl::StatusOr<QueryResult> RunQueryBlocking(const QueryOptions& options);

  int wake_fd_ = -1;  // eventfd; readable when watched_ or stopping_ changed
  std::atomic<bool> stopping_ = false;
  absl::Mutex mutex_;
  std::vector<Watched> incoming_ ABSL_GUARDED_BY(mutex_);
  std::list<Query> queries_ ABSL_GUARDED_BY(mutex_);
  std::set<ProcessId> unreaped_ ABSL_GUARDED_BY(mutex_);  // of Start(), not collected yet
  std::thread watch_thread_;
};

}  // namespace finetuned
