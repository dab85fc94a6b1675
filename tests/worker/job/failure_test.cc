#include "worker/job/failure.h"

#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <new>

#include "proto/base/file_util.h"
#include "worker/training/trainer.h"

namespace finetuned {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

v1::Failure Caught(const std::function<absl::Status()>& body) {
  return FailureOf(CatchAsStatus(v1::EXPORT_FAILED, body), v1::INTERNAL);
}

TEST(FailureTest, SuccessStaysSuccess) {
  EXPECT_TRUE(CatchAsStatus(v1::EXPORT_FAILED, [] { return absl::OkStatus(); }).ok());
}

TEST(FailureTest, ATrainingErrorKeepsAllItKnows) {
  const v1::Failure failure = Caught([]() -> absl::Status {
    TrainingError error(v1::NAN_LOSS, "loss nan at step 7");
    error.step = 7;
    error.last_losses = {2.5, 2.4};
    error.last_grad_norms = {0.5, 40};
    error.sample_ids = {"a", "b"};
    error.suggestions = {"learning_rate=5e-05"};
    throw error;
  });
  EXPECT_EQ(failure.reason(), v1::NAN_LOSS);
  EXPECT_EQ(failure.step(), 7);
  EXPECT_EQ(failure.message(), "loss nan at step 7");
  EXPECT_THAT(failure.last_losses(), ElementsAre(2.5, 2.4));
  EXPECT_THAT(failure.last_grad_norms(), ElementsAre(0.5, 40));
  EXPECT_THAT(failure.sample_ids(), ElementsAre("a", "b"));
  EXPECT_THAT(failure.suggestions(), ElementsAre("learning_rate=5e-05"));
}

TEST(FailureTest, MemoryOfDeviceAndHost) {
  v1::Failure failure = Caught(
      []() -> absl::Status { C10_THROW_ERROR(OutOfMemoryError, "tried to allocate 2 GiB"); });
  EXPECT_EQ(failure.reason(), v1::OUT_OF_MEMORY);
  EXPECT_THAT(failure.message(), HasSubstr("tried to allocate 2 GiB"));
  EXPECT_THAT(failure.suggestions(), Contains("gradient_checkpointing=true"));
  failure = Caught([]() -> absl::Status { throw std::bad_alloc(); });
  EXPECT_EQ(failure.reason(), v1::HOST_OUT_OF_MEMORY);
  EXPECT_FALSE(failure.suggestions().empty());
}

TEST(FailureTest, OtherExceptionsHaveTheReasonOfTheirStage) {
  v1::Failure failure =
      Caught([]() -> absl::Status { TORCH_CHECK(false, "shapes [2] and [3] differ"); });
  EXPECT_EQ(failure.reason(), v1::EXPORT_FAILED);
  EXPECT_THAT(failure.message(), HasSubstr("shapes [2] and [3] differ"));
  EXPECT_EQ(failure.message().find("frame #"), std::string::npos)
      << "a backtrace is no message: " << failure.message();
  EXPECT_EQ(failure.step(), -1);
  failure = Caught([]() -> absl::Status { throw std::runtime_error("tokenizer.json: line 3"); });
  EXPECT_EQ(failure.reason(), v1::EXPORT_FAILED);
  EXPECT_EQ(failure.message(), "tokenizer.json: line 3");
}

TEST(FailureTest, AStatusPassesThrough) {
  v1::Failure failure = Caught([] {
    return FailureStatus(v1::INVALID_SPEC, "r is 100000", "lora.r", {"lora.r=64", "lora.r=16"});
  });
  EXPECT_EQ(failure.reason(), v1::INVALID_SPEC);
  EXPECT_EQ(failure.field(), "lora.r");
  EXPECT_THAT(failure.suggestions(), ElementsAre("lora.r=64", "lora.r=16"));
  failure = Caught([] { return absl::NotFoundError("no such file"); });
  EXPECT_EQ(failure.reason(), v1::INTERNAL);
  EXPECT_EQ(failure.message(), "no such file");
  EXPECT_EQ(failure.step(), -1);
}

TEST(FailureTest, AFullDiskIsOneInEveryStage) {
  const v1::Failure failure = Caught([] { return ErrnoStatus(ENOSPC, "cannot write adapter"); });
  EXPECT_EQ(failure.reason(), v1::DISK_FULL);
  EXPECT_THAT(failure.message(), HasSubstr("cannot write adapter"));
  EXPECT_EQ(Caught([] { return absl::ResourceExhaustedError("too many"); }).reason(), v1::INTERNAL);
}

}  // namespace
}  // namespace finetuned
