// ProcessRunner: starts, watches and ends child processes. The world behind the supervisor; tests
// use tests/fakes/fake_process_runner.h.
//
// Threads: every method may be called from any thread. Callbacks run on a thread of the runner and
// must not block.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace finetuned {

// A process, told apart from a later one with the same pid by its start time.
struct ProcessId {
  int64_t pid = 0;
  int64_t start_ticks = 0;  // field 22 of /proc/<pid>/stat, clock ticks since boot
  friend auto operator<=>(const ProcessId&, const ProcessId&) = default;
};

// How a process ended.
struct ProcessExit {
  // False when the process was started by an earlier server: the kernel tells its status to its
  // parent alone.
  bool known = false;
  int exit_code = -1;  // −1 when it ended by a signal
  int signal = 0;      // 0 when it ended by itself
  // "exit code 3", "killed by SIGKILL (perhaps by the kernel, out of memory)", "ended while the
  // server was away".
  std::string Describe() const;
};

struct ProcessOptions {
  std::vector<std::string> argv;  // argv[0]: path of the executable
  // The whole environment of the child; nothing is inherited.
  std::vector<std::pair<std::string, std::string>> environment;
  std::string working_directory;  // empty: the server's
  std::string log_path;           // stdout and stderr are appended here; empty: /dev/null
  // 0…1000: how readily the kernel ends this process before others when memory is short.
  int oom_score_adj = 0;
};

struct QueryOptions {
  ProcessOptions process;  // log_path is not used
  std::string stdin_bytes;
  absl::Duration timeout = absl::Seconds(60);
  size_t stdout_limit_bytes = 16 << 20;
  size_t stderr_tail_bytes = 4096;
};

struct QueryResult {
  ProcessExit exit;
  std::string stdout_bytes;
  std::string stderr_tail;
};

class ProcessRunner {
 public:
  virtual ~ProcessRunner() = default;

  // Starts a process in a session of its own, with standard input from /dev/null and no inherited
  // descriptor. NOT_FOUND or PERMISSION_DENIED name the executable; RESOURCE_EXHAUSTED when the log
  // cannot be made on a full disk.
  virtual absl::StatusOr<ProcessId> Start(const ProcessOptions& options) = 0;

  // Sends a signal to exactly this process. NOT_FOUND when it has ended, also when its pid is now
  // another's.
  virtual absl::Status Kill(const ProcessId& process, int signal) = 0;

  // False for a process that has ended (a zombie counts as ended) and for a reused pid.
  virtual bool IsAlive(const ProcessId& process) = 0;

  // Calls `on_exit` once when the process has ended, at once if it already has. Works for processes
  // of an earlier server too, then with known = false. Dropped without a call when the runner is
  // destroyed first.
  virtual void Watch(const ProcessId& process, std::function<void(ProcessExit)> on_exit) = 0;

  // Runs a short process: bytes in, bytes out. `done` is called once with the result whatever the
  // exit code, or with DEADLINE_EXCEEDED (killed after the timeout), RESOURCE_EXHAUSTED (more
  // output than the limit; killed), CANCELLED (the runner is being destroyed), or the error of the
  // start.
  virtual void RunQuery(const QueryOptions& options,
                        std::function<void(absl::StatusOr<QueryResult>)> done) = 0;
};

// "SIGKILL" for 9; "signal 77" for one without a name.
std::string SignalName(int signal);

// What a process wrote, as text for messages: every byte that is no part of valid UTF-8 (a
// character cut in two by a limit, say) becomes '?'. A proto string with such a byte cannot be read
// back.
std::string ToUtf8(std::string_view bytes);

// Start time of a live process; NOT_FOUND when there is none or it is a zombie.
absl::StatusOr<int64_t> ProcessStartTicks(int64_t pid);

}  // namespace finetuned
