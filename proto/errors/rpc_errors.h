// One form of error on both ends of a call. An absl::Status carries its details as payloads whose
// type URLs are those of the protobuf messages (google.rpc.ErrorInfo, BadRequest, Help;
// finetuned.v1.ValidateJobResponse for a job's problems); on the wire they are google.rpc.Status in
// the trailer grpc-status-details-bin, which every gRPC library can read.
//
//   server:  return ToGrpcStatus(InvalidField("page_size", "page_size is 5000", "1…1000"));
//   client:  absl::Status status = FromGrpcStatus(rpc_status);  ReasonOf(status);
//   ProblemsOf(status);
//
// Threads: pure functions.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "finetuned/v1/service.pb.h"
#include "grpcpp/support/status.h"

namespace finetuned {

inline constexpr std::string_view kErrorDomain = "finetuned";

// Copies code, message and payloads. A status without an ErrorInfo gets one whose reason is its
// code's name
// ("NOT_FOUND"). gRPC peers refuse trailers above 8 KiB, so message and details are cut to fit:
// lists of problems lose their tail, and the message says how many are missing.
grpc::Status ToGrpcStatus(const absl::Status& status);
// The reverse. Details that cannot be read are dropped, never the code and the message.
absl::Status FromGrpcStatus(const grpc::Status& status);

// INVALID_ARGUMENT (or `code`) with one BadRequest entry for each problem of severity ERROR (or
// unset), all problems as ValidateJobResponse, and ErrorInfo with the first error's failure reason,
// or INVALID_SPEC. The message has the first error in full and the number of the others.
absl::Status InvalidSpec(std::vector<v1::Problem> problems,
                         absl::StatusCode code = absl::StatusCode::kInvalidArgument);
// The problems of such a status; from BadRequest alone if the peer sent no more; empty if it has
// neither.
std::vector<v1::Problem> ProblemsOf(const absl::Status& status);

// INVALID_ARGUMENT for one field of a request (not of the job's spec). `message` says what is
// wrong, with the value; `allowed` what is allowed and the cure. Reason INVALID_REQUEST.
absl::Status InvalidField(std::string_view field, std::string_view message,
                          std::string_view allowed);

// Sets ErrorInfo: a stable upper-case reason and facts for programs. Returns the status for
// chaining; OK stays OK.
absl::Status WithReason(
    absl::Status status, std::string_view reason,
    std::initializer_list<std::pair<std::string_view, std::string_view>> metadata = {});
// Adds a Help link: what to do, and the command or address for it.
absl::Status WithHelp(absl::Status status, std::string_view description, std::string_view url);

// ErrorInfo's reason; empty if there is none.
std::string ReasonOf(const absl::Status& status);
// Help's links as (description, command or address).
std::vector<std::pair<std::string, std::string>> HelpOf(const absl::Status& status);

}  // namespace finetuned
