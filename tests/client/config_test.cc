#include "client/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "proto/base/file_util.h"

namespace finetuned {
namespace {

using ::testing::HasSubstr;

class ConfigTest : public ::testing::Test {
 protected:
  void SetUp() override {
    unsetenv("FINETUNED_SERVER");
    path_ = ::testing::TempDir() + "/finetune-config.yaml";
    ASSERT_TRUE(WriteFileAtomic(path_,
                                "current: lab\ncontexts:\n  lab: {server: gpu1:50051}\n  home:\n   "
                                " server: unix:/tmp/x\n  broken: {}\n")
                    .ok());
  }
  void TearDown() override { unsetenv("FINETUNED_SERVER"); }
  std::string path_;
};

TEST_F(ConfigTest, OrderOfPrecedence) {
  EXPECT_EQ(ChooseServer("", "", "/nonexistent")->address, "127.0.0.1:50051");
  EXPECT_EQ(ChooseServer("", "", path_)->address, "gpu1:50051");
  EXPECT_EQ(ChooseServer("", "home", path_)->address, "unix:/tmp/x");
  setenv("FINETUNED_SERVER", "env:1", 1);
  EXPECT_EQ(ChooseServer("", "", path_)->address, "env:1");
  EXPECT_EQ(ChooseServer("", "home", path_)->address, "unix:/tmp/x");  // asked for by name
  EXPECT_EQ(ChooseServer("flag:1", "home", path_)->address, "flag:1");
}

TEST_F(ConfigTest, ErrorsSayWhatThereIs) {
  EXPECT_THAT(std::string(ChooseServer("", "nowhere", path_).status().message()),
              HasSubstr("there are: lab, home, broken"));
  EXPECT_THAT(std::string(ChooseServer("", "broken", path_).status().message()),
              HasSubstr("has no server"));
  EXPECT_FALSE(ChooseServer("", "x", "/nonexistent").ok());
  ASSERT_TRUE(WriteFileAtomic(path_, "current: [\n").ok());
  EXPECT_THAT(std::string(ChooseServer("", "", path_).status().message()), HasSubstr("line"));
}

}  // namespace
}  // namespace finetuned
