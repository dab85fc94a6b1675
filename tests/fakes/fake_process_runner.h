// ProcessRunner without processes: a test decides what lives, what ends and what a query answers.
#pragma once

#include <map>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "server/launcher/process_runner.h"

namespace finetuned {

class FakeProcessRunner : public ProcessRunner {
 public:
  absl::StatusOr<ProcessId> Start(const ProcessOptions& options) override {
    absl::MutexLock lock(&mutex_);
    started_.push_back(options);
    if (!start_status_.ok()) return start_status_;
    const ProcessId process{.pid = next_pid_, .start_ticks = 1000 + next_pid_};
    ++next_pid_;
    alive_[process.pid] = process.start_ticks;
    return process;
  }

  absl::Status Kill(const ProcessId& process, int signal) override {
    {
      absl::MutexLock lock(&mutex_);
      if (!Alive(process)) return absl::NotFoundError("the process has ended");
      signals_.emplace_back(process, signal);
      if (signal != 9) return absl::OkStatus();
    }
    End(process, {.known = true, .exit_code = -1, .signal = signal});
    return absl::OkStatus();
  }

  bool IsAlive(const ProcessId& process) override {
    absl::MutexLock lock(&mutex_);
    return Alive(process);
  }

  void Watch(const ProcessId& process, std::function<void(ProcessExit)> on_exit) override {
    {
      absl::MutexLock lock(&mutex_);
      if (Alive(process)) {
        watchers_[process.pid].push_back(std::move(on_exit));
        return;
      }
    }
    on_exit(ProcessExit());
  }

  void RunQuery(const QueryOptions& options,
                std::function<void(absl::StatusOr<QueryResult>)> done) override {
    std::function<absl::StatusOr<QueryResult>(const QueryOptions&)> answer;
    {
      absl::MutexLock lock(&mutex_);
      answer = query_;
    }
    done(answer ? answer(options)
                : absl::StatusOr<QueryResult>(QueryResult{{.known = true, .exit_code = 0}}));
  }

  // The process ends by itself or by the test's hand.
  void End(const ProcessId& process, ProcessExit exit) {
    std::vector<std::function<void(ProcessExit)>> watchers;
    {
      absl::MutexLock lock(&mutex_);
      alive_.erase(process.pid);
      watchers.swap(watchers_[process.pid]);
    }
    for (auto& watcher : watchers) watcher(exit);
  }

  void SetStartStatus(absl::Status status) {
    absl::MutexLock lock(&mutex_);
    start_status_ = std::move(status);
  }
  // Called on the thread of RunQuery.
  void SetQuery(std::function<absl::StatusOr<QueryResult>(const QueryOptions&)> query) {
    absl::MutexLock lock(&mutex_);
    query_ = std::move(query);
  }
  std::vector<ProcessOptions> Started() {
    absl::MutexLock lock(&mutex_);
    return started_;
  }
  std::vector<std::pair<ProcessId, int>> Signals() {
    absl::MutexLock lock(&mutex_);
    return signals_;
  }

 private:
  bool Alive(const ProcessId& process) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    auto it = alive_.find(process.pid);
    return it != alive_.end() && it->second == process.start_ticks;
  }

  absl::Mutex mutex_;
  int64_t next_pid_ ABSL_GUARDED_BY(mutex_) = 100;
  std::map<int64_t, int64_t> alive_ ABSL_GUARDED_BY(mutex_);  // pid → start ticks
  std::map<int64_t, std::vector<std::function<void(ProcessExit)>>> watchers_
      ABSL_GUARDED_BY(mutex_);
  std::vector<ProcessOptions> started_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<ProcessId, int>> signals_ ABSL_GUARDED_BY(mutex_);
  absl::Status start_status_ ABSL_GUARDED_BY(mutex_);
  std::function<absl::StatusOr<QueryResult>(const QueryOptions&)> query_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace finetuned
