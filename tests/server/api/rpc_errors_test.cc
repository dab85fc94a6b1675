#include "proto/errors/rpc_errors.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace finetuned {
namespace {

v1::Problem MakeProblem(std::string field, std::string message, v1::Problem::Severity severity) {
  v1::Problem problem;
  problem.set_severity(severity);
  problem.set_field(std::move(field));
  problem.set_message(std::move(message));
  problem.set_allowed("1…512");
  problem.set_reason(v1::INVALID_SPEC);
  return problem;
}

TEST(RpcErrors, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(RpcErrors, ReasonHelpAndCodeComeBack) {
  absl::Status status = WithHelp(WithReason(absl::NotFoundError("job ft-1 does not exist"),
                                            "JOB_NOT_FOUND", {{"job_id", "ft-1"}}),
                                 "list the jobs", "finetune list");
  absl::Status back = FromGrpcStatus(ToGrpcStatus(status));
  EXPECT_EQ(back.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(back.message(), "job ft-1 does not exist");
  EXPECT_EQ(ReasonOf(back), "JOB_NOT_FOUND");
  ASSERT_EQ(HelpOf(back).size(), 1u);
  EXPECT_EQ(HelpOf(back)[0].second, "finetune list");
}

TEST(RpcErrors, AStatusWithoutDetailsGetsItsCodeAsReason) {
  EXPECT_EQ(ReasonOf(FromGrpcStatus(ToGrpcStatus(absl::InternalError("x")))), "INTERNAL");
}

TEST(RpcErrors, ProblemsComeBackWhole) {
  std::vector<v1::Problem> problems = {MakeProblem("lora.r", "r is 100000", v1::Problem::ERROR),
                                       MakeProblem("lr", "lr is odd", v1::Problem::WARNING),
                                       MakeProblem("seed", "seed is -1", v1::Problem::ERROR)};
  absl::Status back = FromGrpcStatus(ToGrpcStatus(InvalidSpec(problems)));
  EXPECT_EQ(back.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(back), "INVALID_SPEC");
  std::vector<v1::Problem> got = ProblemsOf(back);
  ASSERT_EQ(got.size(), problems.size());
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_EQ(got[i].SerializeAsString(), problems[i].SerializeAsString());
  EXPECT_NE(back.message().find("lora.r: r is 100000; allowed: 1…512 (and 1 more error)"),
            absl::string_view::npos)
      << back.message();
}

// What a peer that knows the google.rpc messages alone sees.
TEST(RpcErrors, TheWireFormIsGoogleRpcStatus) {
  grpc::Status status = ToGrpcStatus(InvalidField("page_size", "page_size is 5000", "1…1000"));
  google::rpc::Status wire;
  ASSERT_TRUE(wire.ParseFromString(status.error_details()));
  EXPECT_EQ(wire.code(), 3);
  google::rpc::BadRequest request;
  google::rpc::ErrorInfo info;
  for (const auto& any : wire.details()) {
    if (any.Is<google::rpc::BadRequest>()) any.UnpackTo(&request);
    if (any.Is<google::rpc::ErrorInfo>()) any.UnpackTo(&info);
  }
  ASSERT_EQ(request.field_violations_size(), 1);
  EXPECT_EQ(request.field_violations(0).field(), "page_size");
  EXPECT_EQ(request.field_violations(0).description(), "page_size is 5000; allowed: 1…1000");
  EXPECT_EQ(info.reason(), "INVALID_REQUEST");
  EXPECT_EQ(info.domain(), "finetuned");
}

TEST(RpcErrors, LongListsAreCutToFitTheTrailer) {
  std::vector<v1::Problem> problems;
  for (int i = 0; i < 3000; ++i)
    problems.push_back(
        MakeProblem(absl::StrCat("key", i), std::string(100, 'x'), v1::Problem::ERROR));
  grpc::Status status = ToGrpcStatus(InvalidSpec(problems));
  EXPECT_LT(status.error_details().size() + status.error_message().size() * 3, 8000u);
  absl::Status back = FromGrpcStatus(status);
  EXPECT_GT(ProblemsOf(back).size(), 3u);
  EXPECT_EQ(ReasonOf(back), "INVALID_SPEC");
  EXPECT_NE(back.message().find("of 3000 problems left out"), absl::string_view::npos);
}

TEST(RpcErrors, LongMessagesAreCutOnACharacterBoundary) {
  std::string message;
  for (int i = 0; i < 5000; ++i) message += "ö";
  grpc::Status status = ToGrpcStatus(absl::InternalError(message));
  EXPECT_LT(status.error_details().size() + status.error_message().size() * 3, 8000u);
  std::string text = status.error_message();
  EXPECT_EQ(text.substr(text.size() - 6), " [cut]");
  EXPECT_EQ((text.size() - 6) % 2, 0u);
}

TEST(RpcErrors, DetailsThatAreNoProtoKeepCodeAndMessage) {
  absl::Status back = FromGrpcStatus(
      grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", std::string("\xff\x01\x02", 3)));
  EXPECT_EQ(back.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(back.message(), "gone");
  EXPECT_TRUE(ProblemsOf(back).empty());
}

}  // namespace
}  // namespace finetuned
