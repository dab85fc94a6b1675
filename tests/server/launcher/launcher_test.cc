#include "server/launcher/launcher.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "proto/base/file_util.h"
#include "server/launcher/local_process_runner.h"
#include "tests/fakes/fake_process_runner.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string TempDir() {
  std::string path = ::testing::TempDir() + "launcher.XXXXXX";
  return mkdtemp(path.data());
}

ProcessExit WaitExit(ProcessRunner& runner, const ProcessId& process) {
  absl::Notification ended;
  ProcessExit exit;
  runner.Watch(process, [&](ProcessExit e) {
    exit = e;
    ended.Notify();
  });
  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(20)));
  return exit;
}

absl::StatusOr<QueryResult> Query(ProcessRunner& runner, const QueryOptions& options) {
  absl::Notification ended;
  absl::StatusOr<QueryResult> result;
  runner.RunQuery(options, [&](absl::StatusOr<QueryResult> r) {
    result = std::move(r);
    ended.Notify();
  });
  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(20)));
  return result;
}

ProcessOptions Shell(const std::string& script) {
  return {.argv = {"/bin/sh", "-c", script}, .environment = {{"PATH", "/usr/bin:/bin"}}};
}

TEST(LocalProcessRunner, ExitCodeAndSignalAreReported) {
  LocalProcessRunner runner;
  auto process = runner.Start(Shell("exit 7"));
  ASSERT_TRUE(process.ok()) << process.status();
  ProcessExit exit = WaitExit(runner, *process);
  EXPECT_TRUE(exit.known);
  EXPECT_EQ(exit.exit_code, 7);
  EXPECT_EQ(exit.Describe(), "exit code 7");
  EXPECT_FALSE(runner.IsAlive(*process));

  process = runner.Start(Shell("exec sleep 100"));
  ASSERT_TRUE(process.ok());
  EXPECT_TRUE(runner.IsAlive(*process));
  ASSERT_TRUE(runner.Kill(*process, SIGKILL).ok());
  exit = WaitExit(runner, *process);
  EXPECT_EQ(exit.signal, SIGKILL);
  EXPECT_THAT(exit.Describe(), HasSubstr("SIGKILL"));
  EXPECT_EQ(runner.Kill(*process, SIGKILL).code(), absl::StatusCode::kNotFound);
}

TEST(LocalProcessRunner, OwnSessionNoDescriptorsListedEnvironmentOnly) {
  LocalProcessRunner runner;
  setenv("SECRET_OF_THE_SERVER", "hunter2", 1);
  // An inheritable descriptor with a high number, as a careless library would leave it.
  const int leak = dup2(STDERR_FILENO, 77);
  ASSERT_EQ(leak, 77);
  const std::string dir = TempDir();
  ProcessOptions options = Shell(
      "ls /proc/self/fd; echo; env; echo SESSION $(cut -d' ' -f6 /proc/self/stat) $$; pwd; "
      "cat /proc/self/oom_score_adj; head -c1 | wc -c");
  options.working_directory = dir;
  options.log_path = dir + "/log";
  options.oom_score_adj = 500;
  auto process = runner.Start(options);
  ASSERT_TRUE(process.ok()) << process.status();
  EXPECT_EQ(WaitExit(runner, *process).exit_code, 0);
  const std::string log = ReadFile(dir + "/log").value();
  EXPECT_THAT(log, Not(HasSubstr("77")));
  EXPECT_THAT(log, Not(HasSubstr("hunter2")));
  EXPECT_THAT(log, HasSubstr(absl::StrCat("SESSION ", process->pid, " ", process->pid)));
  EXPECT_THAT(log, HasSubstr(dir));
  EXPECT_THAT(log, HasSubstr("\n500\n"));
  EXPECT_THAT(log, HasSubstr("\n0\n"));  // standard input is empty
  close(leak);
}

TEST(LocalProcessRunner, AReusedPidIsNotHit) {
  LocalProcessRunner runner;
  auto process = runner.Start(Shell("exec sleep 100"));
  ASSERT_TRUE(process.ok());
  // The same pid with another start time: what a record of an earlier boot would say.
  const ProcessId stale{process->pid, process->start_ticks - 1};
  EXPECT_FALSE(runner.IsAlive(stale));
  EXPECT_EQ(runner.Kill(stale, SIGKILL).code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(WaitExit(runner, stale).known);
  EXPECT_TRUE(runner.IsAlive(*process));
  ASSERT_TRUE(runner.Kill(*process, SIGTERM).ok());
  EXPECT_EQ(WaitExit(runner, *process).signal, SIGTERM);
}

TEST(LocalProcessRunner, WatchesAProcessOfAnEarlierRunner) {
  auto first = std::make_unique<LocalProcessRunner>();
  auto process = first->Start(Shell("exec sleep 0.3"));
  ASSERT_TRUE(process.ok());
  first.reset();  // the server goes, the worker stays
  LocalProcessRunner second;
  EXPECT_TRUE(second.IsAlive(*process));
  const absl::Time start = absl::Now();
  const ProcessExit exit = WaitExit(second, *process);
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(50));
  EXPECT_FALSE(exit.known);
  EXPECT_THAT(exit.Describe(), HasSubstr("while the server was away"));
  waitpid(static_cast<pid_t>(process->pid), nullptr, 0);
}

TEST(LocalProcessRunner, StartErrorsNameTheProgram) {
  LocalProcessRunner runner;
  auto process = runner.Start({.argv = {"/no/such/finetune-worker", "run"}});
  EXPECT_EQ(process.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(process.status().message(), HasSubstr("/no/such/finetune-worker"));
}

TEST(LocalProcessRunner, QueryPassesBytesBothWays) {
  LocalProcessRunner runner;
  QueryOptions options{.process = Shell("cat; echo trouble >&2; exit 3")};
  for (int i = 0; i < 300000; ++i) options.stdin_bytes.push_back(static_cast<char>(i % 256));
  auto result = Query(runner, options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->stdout_bytes, options.stdin_bytes);
  EXPECT_EQ(result->stderr_tail, "trouble\n");
  EXPECT_EQ(result->exit.exit_code, 3);
  // A child that never reads its input does not hold us up.
  options.process = Shell("exit 0");
  result = Query(runner, options);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->exit.exit_code, 0);
}

TEST(LocalProcessRunner, QueryLimitsTimeAndOutput) {
  LocalProcessRunner runner;
  QueryOptions options{.process = Shell("sleep 100"), .timeout = absl::Milliseconds(200)};
  const absl::Time start = absl::Now();
  auto result = Query(runner, options);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));

  options = {.process = Shell("cat /dev/zero"), .stdout_limit_bytes = 1 << 20};
  EXPECT_EQ(Query(runner, options).status().code(), absl::StatusCode::kResourceExhausted);

  options = {.process = Shell("yes line >&2 & sleep 0.2; kill $!; exit 0"),
             .stderr_tail_bytes = 100};
  result = Query(runner, options);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->stderr_tail.size(), 100u);
}

TEST(LocalProcessRunner, ClosingEndsAQuery) {
  absl::Notification ended;
  absl::StatusOr<QueryResult> result;
  {
    LocalProcessRunner runner;
    runner.RunQuery({.process = Shell("sleep 100")}, [&](absl::StatusOr<QueryResult> r) {
      result = std::move(r);
      ended.Notify();
    });
  }
  ASSERT_TRUE(ended.HasBeenNotified());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kCancelled);
}

TEST(ToUtf8, KeepsTextAndReplacesTheRest) {
  EXPECT_EQ(ToUtf8("größe 漢字 🚀\n"), "größe 漢字 🚀\n");
  EXPECT_EQ(ToUtf8("a\xff"
                   "b"),
            "a?b");
  EXPECT_EQ(ToUtf8("\xbc"
                   "ber"),
            "?ber");                              // the end of a character cut in two
  EXPECT_EQ(ToUtf8("gr\xc3"), "gr?");             // its beginning
  EXPECT_EQ(ToUtf8("\xc0\xaf"), "??");            // overlong
  EXPECT_EQ(ToUtf8("\xed\xa0\x80"), "???");       // surrogate
  EXPECT_EQ(ToUtf8("\xf4\x90\x80\x80"), "????");  // beyond U+10FFFF
}

TEST(LocalLauncher, TokenGoesByEnvironmentAndQueryFailureSaysWhy) {
  FakeProcessRunner runner;
  LocalLauncher launcher(&runner, {.worker_path = "/opt/finetune-worker",
                                   .socket_path = "/run/worker.sock",
                                   .environment = WorkerEnvironment()});
  setenv("AWS_SECRET_ACCESS_KEY", "hunter2", 1);
  setenv("LANG", "C.UTF-8", 1);
  auto worker = launcher.Launch({.job_id = "job-1",
                                 .attempt = 2,
                                 .token = "t0ken",
                                 .attempt_dir = "/data/jobs/job-1/attempt-2",
                                 .plan_path = "/data/jobs/job-1/attempt-2/plan.pb"});
  ASSERT_TRUE(worker.ok());
  const ProcessOptions started = runner.Started().at(0);
  EXPECT_THAT(started.argv, ::testing::ElementsAre("/opt/finetune-worker", "run"));
  EXPECT_THAT(started.environment,
              ::testing::IsSupersetOf(
                  {::testing::Pair("FINETUNED_ATTEMPT_TOKEN", "t0ken"),
                   ::testing::Pair("FINETUNED_WORKER_SOCKET", "/run/worker.sock"),
                   ::testing::Pair("FINETUNED_PLAN", "/data/jobs/job-1/attempt-2/plan.pb"),
                   ::testing::Pair("LANG", "C.UTF-8")}));
  EXPECT_THAT(started.environment,
              ::testing::Not(::testing::Contains(::testing::Key("AWS_SECRET_ACCESS_KEY"))));
  EXPECT_EQ(started.log_path, "/data/jobs/job-1/attempt-2/worker.log");

  runner.SetQuery([](const QueryOptions& options) {
    QueryResult result;
    result.exit = {.known = true, .exit_code = 1};
    result.stderr_tail = "libtorch.so: cannot open\n";
    return result;
  });
  absl::StatusOr<std::string> answer;
  launcher.Query("request", absl::Seconds(1), [&](absl::StatusOr<std::string> a) { answer = a; });
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(answer.status().message(), HasSubstr("libtorch.so: cannot open"));
}

}  // namespace
}  // namespace finetuned
