#include "server/launcher/local_process_runner.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace {

// By number rather than <sys/pidfd.h>, which clashes with <linux/pidfd.h> in some glibc versions.
int OpenPidfd(int64_t pid) {
  return static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(pid), 0));
}
int SendPidfdSignal(int pidfd, int signal) {
  return static_cast<int>(syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}

absl::Status ProcessError(int error, const ProcessId& process) {
  if (error == ESRCH) {
    return absl::NotFoundError(absl::StrCat("process ", process.pid, " has ended"));
  }
  return ErrnoStatus(error, absl::StrCat("process ", process.pid));
}

// Descriptor of exactly this process: once it is open its pid cannot be reused unseen, so the start
// time is compared after the opening. NOT_FOUND when the process has ended.
absl::StatusOr<int> OpenExactly(const ProcessId& process) {
  const int pidfd = OpenPidfd(process.pid);
  if (pidfd < 0) return ProcessError(errno, process);
  const auto ticks = ProcessStartTicks(process.pid);
  if (!ticks.ok() || *ticks != process.start_ticks) {
    close(pidfd);
    return absl::NotFoundError(absl::StrCat("process ", process.pid, " has ended"));
  }
  return pidfd;
}

// Collects the exit status of a child; known = false for a process that is not our child.
ProcessExit Reap(int64_t pid) {
  ProcessExit exit;
  siginfo_t info = {};
  int rc;
  do {
    rc = waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG);
  } while (rc != 0 && errno == EINTR);
  if (rc != 0 || info.si_pid == 0) return exit;
  exit.known = true;
  if (info.si_code == CLD_EXITED) {
    exit.exit_code = info.si_status;
  } else {
    exit.signal = info.si_status;
  }
  return exit;
}

void SetOomScore(int64_t pid, int score) {
  if (score == 0) return;
  const std::string path = absl::StrCat("/proc/", pid, "/oom_score_adj");
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;  // no such file in some containers; the score is a preference, not a need
  const std::string text = absl::StrCat(score);
  [[maybe_unused]] const ssize_t written = write(fd, text.data(), text.size());
  close(fd);
}

// stdin_fd, stdout_fd, stderr_fd become 0, 1, 2; everything else is closed in the child.
absl::StatusOr<int64_t> Spawn(const ProcessOptions& options, int stdin_fd, int stdout_fd,
                              int stderr_fd) {
  if (options.argv.empty()) return absl::InvalidArgumentError("no program to start");
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  absl::Cleanup cleanup = [&] {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  };
  posix_spawn_file_actions_adddup2(&actions, stdin_fd, 0);
  posix_spawn_file_actions_adddup2(&actions, stdout_fd, 1);
  posix_spawn_file_actions_adddup2(&actions, stderr_fd, 2);
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  if (!options.working_directory.empty()) {
    posix_spawn_file_actions_addchdir_np(&actions, options.working_directory.c_str());
  }
  // A session of its own: a Ctrl-C at the server's terminal or the end of its session does not
  // reach the worker. Signals as a fresh program expects them: the server's mask and ignored
  // SIGPIPE do not pass on.
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::vector<char*> argv;
  for (const std::string& argument : options.argv)
    argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (const auto& [name, value] : options.environment) {
    variables.push_back(absl::StrCat(name, "=", value));
  }
  std::vector<char*> environment;
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);

  pid_t pid = 0;
  const int error = posix_spawn(&pid, options.argv[0].c_str(), &actions, &attributes, argv.data(),
                                environment.data());
  if (error != 0) return ErrnoStatus(error, absl::StrCat("cannot start ", options.argv[0]));
  SetOomScore(pid, options.oom_score_adj);
  return pid;
}

// Appends what is readable; false at the end of the stream. More than `limit` bytes: the newest
// stay if `keep_tail`, else *overflow is set.
bool Drain(int fd, size_t limit, bool keep_tail, std::string* out, bool* overflow) {
  char buffer[65536];
  const ssize_t size = read(fd, buffer, sizeof(buffer));
  if (size < 0) return errno == EINTR || errno == EAGAIN;
  if (size == 0) return false;
  out->append(buffer, static_cast<size_t>(size));
  if (out->size() > limit) {
    if (keep_tail) {
      out->erase(0, out->size() - limit);
    } else {
      *overflow = true;
    }
  }
  return true;
}

}  // namespace

LocalProcessRunner::LocalProcessRunner() : wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  watch_thread_ = std::thread([this] { WatchLoop(); });
}

LocalProcessRunner::~LocalProcessRunner() {
  stopping_ = true;
  Wake();
  watch_thread_.join();
  std::list<Query> queries;
  {
    absl::MutexLock lock(&mutex_);
    queries.swap(queries_);
  }
  for (Query& query : queries) query.thread.join();
  close(wake_fd_);
}

void LocalProcessRunner::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

absl::StatusOr<ProcessId> LocalProcessRunner::Start(const ProcessOptions& options) {
  const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null_fd < 0) return ErrnoStatus(errno, "/dev/null");
  absl::Cleanup close_null = [&] { close(null_fd); };
  int log_fd = null_fd;
  if (!options.log_path.empty()) {
    log_fd = open(options.log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (log_fd < 0) return ErrnoStatus(errno, options.log_path);
  }
  absl::Cleanup close_log = [&] {
    if (log_fd != null_fd) close(log_fd);
  };
  FT_ASSIGN_OR_RETURN(const int64_t pid, Spawn(options, null_fd, log_fd, log_fd));
  ProcessId process{.pid = pid};
  // A child that has already ended is a zombie until it is reaped, so its pid cannot be another's
  // here; its start time is then not needed.
  if (auto ticks = ProcessStartTicks(pid); ticks.ok()) process.start_ticks = *ticks;
  absl::MutexLock lock(&mutex_);
  unreaped_.insert(process);
  return process;
}

absl::Status LocalProcessRunner::Kill(const ProcessId& process, int signal) {
  FT_ASSIGN_OR_RETURN(const int pidfd, OpenExactly(process));
  absl::Cleanup close_pidfd = [&] { close(pidfd); };
  if (SendPidfdSignal(pidfd, signal) != 0) {
    return ProcessError(errno, process);
  }
  return absl::OkStatus();
}

bool LocalProcessRunner::IsAlive(const ProcessId& process) {
  const auto ticks = ProcessStartTicks(process.pid);
  return ticks.ok() && *ticks == process.start_ticks;
}

void LocalProcessRunner::Watch(const ProcessId& process, std::function<void(ProcessExit)> on_exit) {
  auto pidfd = OpenExactly(process);
  {
    absl::MutexLock lock(&mutex_);
    incoming_.push_back({process, pidfd.ok() ? *pidfd : -1, std::move(on_exit)});
  }
  Wake();
}

ProcessExit LocalProcessRunner::Collect(const ProcessId& process) {
  {
    // Without this check the status of another child that has got the pid could be taken.
    absl::MutexLock lock(&mutex_);
    if (unreaped_.erase(process) == 0) return ProcessExit();
  }
  return Reap(process.pid);
}

void LocalProcessRunner::WatchLoop() {
  std::vector<Watched> watched;
  std::vector<pollfd> polls;
  while (!stopping_) {
    {
      absl::MutexLock lock(&mutex_);
      std::move(incoming_.begin(), incoming_.end(), std::back_inserter(watched));
      incoming_.clear();
    }
    polls.assign(1, {wake_fd_, POLLIN, 0});
    bool some_ended = false;
    for (const Watched& entry : watched) {
      polls.push_back({entry.pidfd, POLLIN, 0});
      some_ended |= entry.pidfd < 0;
    }
    if (poll(polls.data(), polls.size(), some_ended ? 0 : -1) < 0 && errno != EINTR) break;
    uint64_t count;
    [[maybe_unused]] const ssize_t size = read(wake_fd_, &count, sizeof(count));
    std::vector<Watched> ended;
    for (size_t i = watched.size(); i-- > 0;) {
      if (watched[i].pidfd >= 0 && (polls[i + 1].revents & (POLLIN | POLLERR | POLLHUP)) == 0)
        continue;
      ended.push_back(std::move(watched[i]));
      watched.erase(watched.begin() + static_cast<ptrdiff_t>(i));
    }
    for (Watched& entry : ended) {
      const ProcessExit exit = Collect(entry.process);
      if (entry.pidfd >= 0) close(entry.pidfd);
      entry.on_exit(exit);
    }
  }
  for (const Watched& entry : watched) {
    if (entry.pidfd >= 0) close(entry.pidfd);
  }
}

void LocalProcessRunner::RunQuery(const QueryOptions& options,
                                  std::function<void(absl::StatusOr<QueryResult>)> done) {
  if (stopping_) return done(absl::CancelledError("the process runner is closing"));
  absl::MutexLock lock(&mutex_);
  for (auto it = queries_.begin(); it != queries_.end();) {
    if (it->finished) {
      it->thread.join();
      it = queries_.erase(it);
    } else {
      ++it;
    }
  }
  Query& query = queries_.emplace_back();
  query.thread = std::thread([this, &query, options, done = std::move(done)] {
    done(RunQueryBlocking(options));
    query.finished = true;
  });
}

absl::StatusOr<QueryResult> LocalProcessRunner::RunQueryBlocking(const QueryOptions& options) {
  // Input from a memory file: a child that does not read it cannot block us or raise SIGPIPE.
  const int input = memfd_create("query", MFD_CLOEXEC);
  if (input < 0) return ErrnoStatus(errno, "memfd_create");
  absl::Cleanup close_input = [&] { close(input); };
  for (size_t written = 0; written < options.stdin_bytes.size();) {
    const ssize_t n =
        write(input, options.stdin_bytes.data() + written, options.stdin_bytes.size() - written);
    if (n < 0 && errno != EINTR) return ErrnoStatus(errno, "query input");
    if (n > 0) written += static_cast<size_t>(n);
  }
  lseek(input, 0, SEEK_SET);

  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  absl::Cleanup close_out = [&] { close(out[0]); };
  if (pipe2(err, O_CLOEXEC) != 0) {
    const int error = errno;
    close(out[1]);
    return ErrnoStatus(error, "pipe");
  }
  absl::Cleanup close_err = [&] { close(err[0]); };
  const auto pid = Spawn(options.process, input, out[1], err[1]);
  close(out[1]);
  close(err[1]);
  if (!pid.ok()) return pid.status();

  const absl::Time deadline = absl::Now() + options.timeout;
  QueryResult result;
  absl::Status status;
  bool out_open = true, err_open = true, overflow = false;
  while ((out_open || err_open) && status.ok()) {
    pollfd polls[2] = {{out_open ? out[0] : -1, POLLIN, 0}, {err_open ? err[0] : -1, POLLIN, 0}};
    poll(polls, 2, /*timeout_ms=*/100);
    if (polls[0].revents != 0) {
      out_open = Drain(out[0], options.stdout_limit_bytes, /*keep_tail=*/false,
                       &result.stdout_bytes, &overflow);
    }
    if (polls[1].revents != 0) {
      err_open = Drain(err[0], options.stderr_tail_bytes, /*keep_tail=*/true, &result.stderr_tail,
                       nullptr);
    }
    if (overflow) {
      status = absl::ResourceExhaustedError(absl::StrCat(
          options.process.argv[0], " wrote more than ", options.stdout_limit_bytes, " bytes"));
    } else if (absl::Now() > deadline) {
      status = absl::DeadlineExceededError(absl::StrCat(options.process.argv[0],
                                                        " did not answer within ",
                                                        absl::FormatDuration(options.timeout)));
    } else if (stopping_) {
      status = absl::CancelledError("the server is shutting down");
    }
  }
  // The child is ours and not yet reaped, so its pid cannot be another's. Its group dies with it.
  if (!status.ok()) kill(static_cast<pid_t>(-*pid), SIGKILL);
  for (;;) {
    siginfo_t info = {};
    const int rc = waitid(P_PID, static_cast<id_t>(*pid), &info, WEXITED | WNOHANG | WNOWAIT);
    if (rc != 0 || info.si_pid != 0) break;
    if (status.ok() && (absl::Now() > deadline || stopping_)) {
      status = absl::DeadlineExceededError(absl::StrCat(options.process.argv[0], " did not end"));
      kill(static_cast<pid_t>(-*pid), SIGKILL);
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  result.exit = Reap(*pid);
  if (!status.ok()) return status;
  return result;
}

}  // namespace finetuned
