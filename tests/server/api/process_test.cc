// The parts of the process around the API: log lines, the service manager's protocol, `finetuned
// check`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "finetuned/v1/worker.pb.h"
#include "proto/base/file_util.h"
#include "server/logging.h"
#include "server/notify.h"
#include "server/self_check.h"
#include "tests/fakes/temp_dir.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Logging, OneEventIsOneLine) {
  EXPECT_EQ(TextLogMessage("", "a\nb"), "a\\nb");
  EXPECT_EQ(TextLogMessage("ft-1", "started"), "[ft-1] started");
  EXPECT_EQ(TextLogMessage("", "\x1b[2J"), "\\u001b[2J");
}

TEST(Logging, JsonLinesParse) {
  const std::string hostile = "quote \" backslash \\ newline \n tab \t escape \x1b öl";
  const auto line = nlohmann::json::parse("{" + JsonLogMessage("info", "ft-1", hostile) + "}");
  EXPECT_EQ(line["text"], hostile);
  EXPECT_EQ(line["job"], "ft-1");
  EXPECT_EQ(line["level"], "info");
  EXPECT_FALSE(nlohmann::json::parse("{" + JsonLogMessage("info", "", "x") + "}").contains("job"));
}

TEST(Notify, SendsOneDatagram) {
  TempDir dir;
  const std::string path = dir / "notify";
  const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  setenv("NOTIFY_SOCKET", path.c_str(), 1);
  NotifyServiceManager("READY=1\nSTATUS=serving");
  char buffer[64] = {};
  EXPECT_EQ(recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT), 22);
  EXPECT_STREQ(buffer, "READY=1\nSTATUS=serving");
  close(fd);
  // Nobody listens, a path too long, none: nothing happens.
  NotifyServiceManager("READY=1");
  setenv("NOTIFY_SOCKET", ("/" + std::string(200, 'a')).c_str(), 1);
  NotifyServiceManager("READY=1");
  unsetenv("NOTIFY_SOCKET");
  NotifyServiceManager("READY=1");
}

TEST(Notify, WatchdogIsHalfTheManagersTime) {
  unsetenv("WATCHDOG_USEC");
  EXPECT_EQ(WatchdogInterval(), absl::InfiniteDuration());
  setenv("WATCHDOG_USEC", "60000000", 1);
  EXPECT_EQ(WatchdogInterval(), absl::Seconds(30));
  setenv("WATCHDOG_USEC", "many", 1);
  EXPECT_EQ(WatchdogInterval(), absl::InfiniteDuration());
  unsetenv("WATCHDOG_USEC");
}

// A worker that answers a query with what the test says.
class FakeLauncher : public Launcher {
 public:
  absl::StatusOr<ProcessId> Launch(const LaunchRequest&) override {
    return absl::UnimplementedError("no attempts here");
  }
  bool IsAlive(const ProcessId&) override { return false; }
  absl::Status Kill(const ProcessId&, int) override { return absl::OkStatus(); }
  void Watch(const ProcessId&, std::function<void(ProcessExit)>) override {}
  void Query(std::string request, absl::Duration,
             std::function<void(absl::StatusOr<std::string>)> done) override {
    v1::QueryRequest parsed;
    EXPECT_TRUE(parsed.ParseFromString(request));
    EXPECT_EQ(parsed.kind(), v1::QueryRequest::DEVICES);
    done(answer);
  }
  absl::StatusOr<std::string> answer = std::string();
};

class SelfCheckTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_.data_dir = dir_ / "data";
    config_.model_roots = {dir_.path()};
    config_.data_roots = {dir_.path()};
    config_.worker = "/bin/true";
    config_.min_free_disk_mib = 1;
  }
  std::string Check(bool passes) {
    const auto results = CheckServer(config_, launcher_);
    EXPECT_EQ(Passed(results), passes) << FormatCheck(results);
    return FormatCheck(results);
  }
  TempDir dir_;
  Config config_;
  FakeLauncher launcher_;
};

TEST_F(SelfCheckTest, AllIsWellWithoutAGpu) {
  const std::string text = Check(true);
  EXPECT_THAT(text, HasSubstr("will be made"));
  EXPECT_THAT(text, HasSubstr("warn   gpu         no usable GPU"));
  EXPECT_FALSE(std::filesystem::exists(config_.data_dir)) << "the check changes nothing";
}

TEST_F(SelfCheckTest, DevicesAreNamedWithTheReasonWhyNot) {
  v1::QueryResponse response;
  auto* good = response.add_devices();
  good->set_id("gpu0");
  good->set_name("H100");
  good->set_usable(true);
  auto* bad = response.add_devices();
  bad->set_id("gpu1");
  bad->set_reason("capability 3.5 is below 7.5");
  launcher_.answer = response.SerializeAsString();
  const std::string text = Check(true);
  EXPECT_THAT(text, HasSubstr("ok     gpu         gpu0: H100"));
  EXPECT_THAT(text, HasSubstr("capability 3.5 is below 7.5"));
  EXPECT_THAT(text, Not(HasSubstr("no usable GPU")));
}

TEST_F(SelfCheckTest, EveryFaultIsFoundWithItsCure) {
  config_.model_roots = {dir_ / "nowhere"};
  config_.data_roots = {};
  config_.worker = dir_ / "no-worker";
  std::ofstream(dir_ / "file") << "";
  config_.data_dir = dir_ / "file/data";
  std::string text = Check(false);
  EXPECT_THAT(text, HasSubstr("nowhere: no such directory"));
  EXPECT_THAT(text, HasSubstr("data-root   none"));
  EXPECT_THAT(text, HasSubstr("no-worker: not there, or not executable"));
  EXPECT_THAT(text, HasSubstr("file is no directory"));
  config_.data_dir = dir_.path();
  config_.min_free_disk_mib = int64_t{1} << 40;
  EXPECT_THAT(Check(false), HasSubstr("no job would start"));
  SetUp();
  launcher_.answer =
      absl::InternalError("exit code 127: libc10.so: cannot open shared object file");
  EXPECT_THAT(Check(false), HasSubstr("libc10.so"));
}

}  // namespace
}  // namespace finetuned
