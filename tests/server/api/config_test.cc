#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "proto/base/file_util.h"

namespace finetuned {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = ::testing::TempDir() + "/config_test";
    ASSERT_TRUE(MakeDirectories(directory_).ok());
    variables_ = {{"HOME", "/home/a"}};
  }
  void TearDown() override { ASSERT_TRUE(RemoveAll(directory_).ok()); }

  absl::StatusOr<CommandLine> Parse(const std::vector<std::string>& args) {
    return ParseCommandLine("/opt/bin/finetuned", args, [this](const std::string& name) {
      auto it = variables_.find(name);
      return it == variables_.end() ? std::nullopt : std::optional<std::string>(it->second);
    });
  }
  std::string File(const std::string& text) {
    const std::string path = directory_ + "/finetuned.yaml";
    EXPECT_TRUE(WriteFileAtomic(path, text).ok());
    return path;
  }
  std::string Error(const std::vector<std::string>& args) {
    auto line = Parse(args);
    EXPECT_FALSE(line.ok());
    return line.ok() ? "" : std::string(line.status().message());
  }

  std::string directory_;
  std::map<std::string, std::string> variables_;
};

TEST_F(ConfigTest, Defaults) {
  auto line = Parse({});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->command, ServerCommand::kServe);
  EXPECT_EQ(line->config.listen, "127.0.0.1:50051");
  EXPECT_EQ(line->config.metrics_listen, "127.0.0.1:9464");
  EXPECT_EQ(line->config.worker, "/opt/bin/finetune-worker");
  EXPECT_EQ(line->config.sources["listen"], "default");
}

TEST_F(ConfigTest, FlagWinsOverEnvironmentOverFileOverDefault) {
  const std::string path =
      File("log-level: debug\nlog_format: json\ncpu-threads: 3\nmodel-root: [/a, /b]\n");
  variables_["FINETUNED_LOG_LEVEL"] = "warning";
  variables_["FINETUNED_CPU_THREADS"] = "4";
  variables_["FINETUNED_DATA_ROOT"] = "/d1:/d2";
  auto line = Parse({"config", "--config", path, "--cpu-threads=5", "--model-root", "/x",
                     "--model-root", "/y/../z"});
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->command, ServerCommand::kConfig);
  Config& config = line->config;
  EXPECT_EQ(config.log_format, "json");
  EXPECT_EQ(config.log_level, "warning");
  EXPECT_EQ(config.cpu_threads, 5);
  EXPECT_THAT(config.model_roots, ElementsAre("/x", "/z"));
  EXPECT_THAT(config.data_roots, ElementsAre("/d1", "/d2"));
  EXPECT_THAT(config.sources["log-format"], HasSubstr("finetuned.yaml:2"));
  EXPECT_EQ(config.sources["log-level"], "environment FINETUNED_LOG_LEVEL");
  EXPECT_EQ(config.sources["cpu-threads"], "flag");
}

TEST_F(ConfigTest, ThePrintedConfigurationReadsBackTheSame) {
  auto line = Parse({"--data-dir", "/srv/a \"b\"", "--model-root", "/m", "--memory-fraction", "0.5",
                     "--insecure", "--listen", "0.0.0.0:1"});
  ASSERT_TRUE(line.ok()) << line.status();
  auto again = Parse({"--config", File(DescribeConfig(line->config))});
  ASSERT_TRUE(again.ok()) << again.status() << DescribeConfig(line->config);
  EXPECT_EQ(again->config.data_dir, "/srv/a \"b\"");
  EXPECT_THAT(again->config.model_roots, ElementsAre("/m"));
  EXPECT_EQ(again->config.memory_fraction, 0.5);
  EXPECT_TRUE(again->config.insecure);
  EXPECT_EQ(again->config.worker, line->config.worker);
}

TEST_F(ConfigTest, ErrorsNameOptionValueSourceAndCure) {
  const std::string path = File("data-dri: /a\n");
  EXPECT_THAT(Error({"--config", path}), HasSubstr("unknown key 'data-dri'"));
  EXPECT_THAT(Error({"--config", path}), HasSubstr("did you mean 'data-dir'?"));
  EXPECT_THAT(Error({"--lisen", "x:1"}), HasSubstr("did you mean --listen?"));
  EXPECT_THAT(Error({"--config", "/no/such.yaml"}), HasSubstr("/no/such.yaml"));
  EXPECT_THAT(Error({"--config", File("listen: [a")}), HasSubstr("is no YAML"));
  EXPECT_THAT(Error({"--config", File("- a\n")}), HasSubstr("key: value"));
  EXPECT_THAT(Error({"--config", File("listen: {a: b}\n")}), HasSubstr("listen has no value"));
  EXPECT_THAT(Error({"--log-format", "xml"}),
              HasSubstr("log-format is 'xml' (flag); allowed: text, json"));
  EXPECT_THAT(Error({"--memory-fraction", "1.5"}), HasSubstr("0.05 to 1"));
  EXPECT_THAT(Error({"--memory-fraction", "nan"}), HasSubstr("memory-fraction is 'nan'"));
  EXPECT_THAT(Error({"--cpu-threads", "many"}), HasSubstr("a whole number"));
  EXPECT_THAT(Error({"--listen", "localhost"}), HasSubstr("HOST:PORT"));
  EXPECT_THAT(Error({"--listen", "localhost:99999"}), HasSubstr("0 to 65535"));
  EXPECT_THAT(Error({"--listen", "unix:" + std::string(200, 'a')}), HasSubstr("107 bytes"));
  EXPECT_THAT(Error({"--data-dir", ""}), HasSubstr("not empty"));
  variables_["FINETUNED_INSECURE"] = "perhaps";
  EXPECT_THAT(Error({}), HasSubstr("environment FINETUNED_INSECURE"));
}

TEST_F(ConfigTest, OffLoopbackNeedsInsecure) {
  for (const char* address :
       {"0.0.0.0:50051", "[::]:50051", "192.168.1.4:50051", "host.example:50051"}) {
    EXPECT_THAT(Error({"--listen", address}), HasSubstr("--insecure")) << address;
    EXPECT_TRUE(Parse({"--listen", address, "--insecure"}).ok()) << address;
  }
  for (const char* address :
       {"127.0.0.1:0", "127.1.2.3:5", "localhost:5", "[::1]:5", "unix:/run/f.sock"})
    EXPECT_TRUE(Parse({"--listen", address}).ok()) << address;
}

TEST_F(ConfigTest, HelpNamesEveryOption) {
  auto line = Parse({"--help"});
  ASSERT_TRUE(line.ok());
  EXPECT_EQ(line->command, ServerCommand::kHelp);
  auto defaults = Parse({});
  for (const auto& [name, source] : defaults->config.sources)
    EXPECT_THAT(line->help, HasSubstr("--" + name));
  EXPECT_THAT(line->help, HasSubstr("Example"));
}

// Damaged files give an error or a configuration, never a crash.
TEST_F(ConfigTest, DamagedFilesNeverCrash) {
  const unsigned seed = std::random_device()();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  const std::string good =
      DescribeConfig(Parse({"--model-root", "/a", "--data-root", "/b"})->config);
  int refused = 0;
  for (int i = 0; i < 300; ++i) {
    std::string text = good;
    for (int j = 0; j < 4; ++j) {
      const size_t at = random() % text.size();
      if (random() % 2)
        text[at] = static_cast<char>(random());
      else
        text.erase(at, random() % 20);
    }
    refused += !Parse({"--config", File(text)}).ok();
  }
  EXPECT_GT(refused, 0);
}

}  // namespace
}  // namespace finetuned
