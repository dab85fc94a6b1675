// The job files under deploy/examples map to specs without an error.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "client/yaml_spec.h"
#include "proto/base/file_util.h"
#include "proto/spec/spec.h"

namespace finetuned {
namespace {

TEST(Examples, EveryJobFileIsValid) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::string(std::getenv("FINETUNED_SOURCE_DIR")) + "/deploy/examples")) {
    auto text = ReadFile(entry.path());
    ASSERT_TRUE(text.ok()) << text.status();
    auto job = ParseJobFile(*text);
    ASSERT_TRUE(job.ok()) << entry.path() << ": " << job.status();
    for (const MappingProblem& problem : job->problems)
      ADD_FAILURE() << entry.path() << ":" << problem.line << ": "
                    << problem.problem.ShortDebugString();
    for (const v1::Problem& problem : ValidateSpec(job->spec))
      EXPECT_NE(problem.severity(), v1::Problem::ERROR)
          << entry.path() << ": " << problem.ShortDebugString();
    ++files;
  }
  EXPECT_GE(files, 6);
}

}  // namespace
}  // namespace finetuned
