// deploy/ against the code: Prometheus rules name metrics that exist, promtool accepts them,
// example files are valid.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <regex>
#include <set>

#include "proto/base/file_util.h"
#include "server/config.h"
#include "server/metrics/metrics.h"

namespace finetuned {
namespace {

std::string Deploy(const std::string& name) {
  return std::string(std::getenv("FINETUNED_SOURCE_DIR")) + "/deploy/" + name;
}

int Shell(const std::string& command) { return WEXITSTATUS(std::system(command.c_str())); }

TEST(Deploy, PromtoolAcceptsConfigurationAndRules) {
  EXPECT_EQ(Shell("promtool check config " + Deploy("prometheus/prometheus.yml")), 0);
  EXPECT_EQ(Shell("promtool test rules " + Deploy("prometheus/alerts_test.yml")), 0);
}

TEST(Deploy, RulesNameMetricsThatExist) {
  std::set<std::string> known;
  for (const MetricDefinition& definition : MetricDefinitions()) {
    known.insert(definition.name);
    if (definition.kind == MetricKind::kHistogram)
      for (const char* suffix : {"_bucket", "_count", "_sum"})
        known.insert(std::string(definition.name) + suffix);
  }
  int names = 0;
  for (const char* file : {"prometheus/alerts.yml", "prometheus/recording.yml"}) {
    auto text = ReadFile(Deploy(file));
    ASSERT_TRUE(text.ok()) << text.status();
    const std::regex name("finetuned_[a-z_]+");
    for (std::sregex_iterator it(text->begin(), text->end(), name), end; it != end; ++it, ++names)
      EXPECT_TRUE(known.count(it->str())) << file << " names " << it->str();
  }
  EXPECT_GT(names, 10);
}

TEST(Deploy, TheExampleConfigurationIsAccepted) {
  auto line = ParseCommandLine("/usr/local/bin/finetuned", {"--config", Deploy("finetuned.yaml")},
                               [](const std::string&) { return std::nullopt; });
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->config.data_dir, "/var/lib/finetuned");
}

}  // namespace
}  // namespace finetuned
