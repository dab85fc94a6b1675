// Files of client/commands/ against lines of commands.def, and what every command must have.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "client/cli.h"

namespace finetuned {
namespace {

TEST(Registry, OneFileForEachLine) {
  std::set<std::string> files, lines;
  for (const auto& entry : std::filesystem::directory_iterator(FINETUNED_CLIENT_DIR "/commands")) {
    files.insert(entry.path().stem());
  }
  std::ifstream def(FINETUNED_CLIENT_DIR "/commands.def");
  for (std::string line; std::getline(def, line);) {
    if (line.rfind("COMMAND(", 0) == 0)
      lines.insert(absl::AsciiStrToLower(line.substr(8, line.find(')') - 8)));
  }
  EXPECT_EQ(files, lines);
  EXPECT_EQ(lines.size(), Commands().size());
}

TEST(Registry, EveryCommandHasNameDescriptionExamplesAndOptionHelp) {
  GlobalOptions options;
  std::vector<finetuned::Run> runs;
  const std::unique_ptr<CLI::App> app = MakeApp(&options, &runs);
  ASSERT_EQ(runs.size(), Commands().size());
  std::set<std::string> names;
  for (size_t i = 0; i < Commands().size(); ++i) {
    const Command& command = *Commands()[i];
    EXPECT_TRUE(names.insert(command.name).second) << command.name;
    EXPECT_FALSE(std::string(command.description).empty()) << command.name;
    EXPECT_NE(std::string(command.example).find(std::string("finetune ") + command.name),
              std::string::npos)
        << command.name;
    EXPECT_TRUE(runs[i]) << command.name;
    const CLI::App* sub = app->get_subcommand(command.name);
    EXPECT_NE(sub->help().find("Examples:"), std::string::npos) << command.name;
    for (const CLI::Option* option : sub->get_options()) {
      EXPECT_FALSE(option->get_description().empty()) << command.name << " " << option->get_name();
    }
  }
}

TEST(Registry, WhatIsNotBuiltIsNotNamed) {
  for (const Command* command : Commands()) {
    for (const char* absent : {"prepare", "evaluate", "compare", "report", "plot", "diagnose",
                               "profile", "top", "tokens"}) {
      EXPECT_STRNE(command->name, absent);
    }
  }
}

}  // namespace
}  // namespace finetuned
