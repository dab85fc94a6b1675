// Which modules a spec selects.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/adapters/lora.h"

namespace finetuned {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const char* layer : {"0", "1"}) {
    for (const char* part : {"self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj"}) {
      names.push_back(std::string("model.layers.") + layer + "." + part);
    }
  }
  return names;
}

std::vector<std::string> Select(std::vector<std::string> targets,
                                std::vector<std::string> excluded = {}) {
  v1::Lora spec;
  for (auto& target : targets) spec.add_target_modules(target);
  for (auto& name : excluded) spec.add_exclude_modules(name);
  return SelectTargetModules(Names(), spec);
}

TEST(TargetModules, GroupsSuffixesNamesAndPatterns) {
  EXPECT_THAT(Select({}), SizeIs(6));
  EXPECT_THAT(Select({"auto"}), SizeIs(6));
  EXPECT_THAT(Select({"all-linear"}), SizeIs(6));
  EXPECT_THAT(Select({"attention"}), SizeIs(4));
  EXPECT_THAT(Select({"mlp"}),
              ElementsAre("model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"));
  EXPECT_THAT(Select({"q_proj"}), SizeIs(2));
  EXPECT_THAT(Select({"model.layers.1.self_attn.q_proj"}), SizeIs(1));
  EXPECT_THAT(Select({R"(.*layers\.1\..*)"}), SizeIs(3));
  EXPECT_THAT(Select({"up_proj", "q_proj"}), SizeIs(4));
  EXPECT_THAT(Select({"all-linear"}, {"mlp"}), SizeIs(4));
}

TEST(TargetModules, MistakesListWhatIsThere) {
  const auto error = [](const std::vector<std::string>& targets,
                        const std::vector<std::string>& excluded = {}) {
    try {
      Select(targets, excluded);
    } catch (const std::invalid_argument& caught) {
      return std::string(caught.what());
    }
    return std::string("no error");
  };
  EXPECT_THAT(error({"query"}),
              testing::AllOf(HasSubstr("'query'"), HasSubstr("o_proj, q_proj, up_proj")));
  EXPECT_THAT(error({"q_pro"}), HasSubstr("matches no linear layer"))
      << "a suffix is a whole component";
  EXPECT_THAT(error({"(q_proj"}), HasSubstr("no valid regular expression"));
  EXPECT_THAT(error({"q_proj"}, {"attention"}), HasSubstr("nothing is left"));
}

}  // namespace
}  // namespace finetuned
