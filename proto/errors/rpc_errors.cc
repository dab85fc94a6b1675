#include "proto/errors/rpc_errors.h"

#include <algorithm>
#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace finetuned {
namespace {

// Together under the 8 KiB of metadata that peers accept by default. grpc-message is
// percent-encoded (three bytes for each byte outside ASCII), so the message's budget counts encoded
// bytes.
constexpr size_t kMaxEncodedMessageBytes = 2048;
constexpr size_t kMaxDetailsBytes = 3800;

// Debian's abseil has a string_view of its own, which does not convert.
absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

template <typename Message>
std::string TypeUrl() {
  return absl::StrCat("type.googleapis.com/", Message::descriptor()->full_name());
}

template <typename Message>
std::optional<Message> Payload(const absl::Status& status) {
  absl::optional<absl::Cord> cord = status.GetPayload(TypeUrl<Message>());
  Message message;
  if (!cord || !message.ParseFromString(std::string(*cord))) return std::nullopt;
  return message;
}

template <typename Message>
void SetPayload(absl::Status& status, const Message& message) {
  status.SetPayload(TypeUrl<Message>(), absl::Cord(message.SerializeAsString()));
}

bool IsPlain(unsigned char c) { return c >= 0x20 && c < 0x7f && c != '%'; }

std::string CutMessage(std::string_view message) {
  size_t encoded = 0;
  for (size_t i = 0; i < message.size(); ++i) {
    encoded += IsPlain(message[i]) ? 1 : 3;
    if (encoded > kMaxEncodedMessageBytes) {
      // Step back to the start of a UTF-8 sequence.
      while (i > 0 && (static_cast<unsigned char>(message[i]) & 0xc0) == 0x80) --i;
      return absl::StrCat(View(message.substr(0, i)), " [cut]");
    }
  }
  return std::string(message);
}

bool IsError(const v1::Problem& problem) { return problem.severity() != v1::Problem::WARNING; }

std::string Describe(const v1::Problem& problem) {
  if (problem.allowed().empty()) return problem.message();
  return absl::StrCat(problem.message(), "; allowed: ", problem.allowed());
}

google::rpc::BadRequest BadRequestFor(const std::vector<v1::Problem>& problems) {
  google::rpc::BadRequest request;
  for (const v1::Problem& problem : problems) {
    if (!IsError(problem)) continue;
    auto* violation = request.add_field_violations();
    violation->set_field(problem.field());
    violation->set_description(Describe(problem));
    if (problem.reason() != v1::FAILURE_REASON_UNSPECIFIED)
      violation->set_reason(v1::FailureReason_Name(problem.reason()));
  }
  return request;
}

void SetProblems(absl::Status& status, const std::vector<v1::Problem>& problems) {
  v1::ValidateJobResponse all;
  for (const v1::Problem& problem : problems) *all.add_problems() = problem;
  SetPayload(status, all);
  SetPayload(status, BadRequestFor(problems));
}

google::rpc::Status Pack(const absl::Status& status, const std::string& message) {
  google::rpc::Status packed;
  packed.set_code(static_cast<int>(status.code()));
  packed.set_message(message);
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& value) {
    auto* any = packed.add_details();
    any->set_type_url(std::string(type_url));
    any->set_value(std::string(value));
  });
  return packed;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  absl::Status full = status;
  if (ReasonOf(full).empty()) full = WithReason(full, absl::StatusCodeToString(full.code()));
  std::string message = CutMessage(std::string(full.message()));
  google::rpc::Status packed = Pack(full, message);
  if (packed.ByteSizeLong() > kMaxDetailsBytes + message.size()) {
    // Keep the longest list of problems that fits; a program still gets code, reason and the first
    // problems.
    std::vector<v1::Problem> problems = ProblemsOf(full);
    const size_t total = problems.size();
    while (!problems.empty()) {
      problems.resize(problems.size() - std::max<size_t>(1, problems.size() / 8));
      SetProblems(full, problems);
      packed = Pack(full, message);
      if (packed.ByteSizeLong() <= kMaxDetailsBytes + message.size()) break;
    }
    if (total > 0) {
      message =
          absl::StrCat(message, " [", total - problems.size(), " of ", total,
                       " problems left out: the answer would be too long; ValidateJob lists all]");
      packed = Pack(full, message);
    }
    if (packed.ByteSizeLong() > kMaxDetailsBytes + message.size()) {
      packed.clear_details();
      google::rpc::ErrorInfo info;
      info.set_reason(std::string(absl::StatusCodeToString(full.code())));
      info.set_domain(std::string(kErrorDomain));
      auto* any = packed.add_details();
      any->set_type_url(TypeUrl<google::rpc::ErrorInfo>());
      any->set_value(info.SerializeAsString());
    }
  }
  return grpc::Status(static_cast<grpc::StatusCode>(full.code()), message,
                      packed.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status packed;
  if (!status.error_details().empty() && packed.ParseFromString(status.error_details()))
    for (const auto& any : packed.details())
      result.SetPayload(any.type_url(), absl::Cord(any.value()));
  return result;
}

absl::Status InvalidSpec(std::vector<v1::Problem> problems, absl::StatusCode code) {
  const auto first = std::find_if(problems.begin(), problems.end(), IsError);
  const auto errors = std::count_if(problems.begin(), problems.end(), IsError);
  std::string message = "the job has problems";
  std::string reason = v1::FailureReason_Name(v1::INVALID_SPEC);
  if (first != problems.end()) {
    message = first->field().empty() ? Describe(*first)
                                     : absl::StrCat(first->field(), ": ", Describe(*first));
    if (errors > 1)
      absl::StrAppend(&message, " (and ", errors - 1,
                      errors == 2 ? " more error)" : " more errors)");
    if (first->reason() != v1::FAILURE_REASON_UNSPECIFIED)
      reason = v1::FailureReason_Name(first->reason());
  }
  absl::Status status(code, message);
  SetProblems(status, problems);
  return WithReason(status, reason);
}

std::vector<v1::Problem> ProblemsOf(const absl::Status& status) {
  std::vector<v1::Problem> problems;
  if (auto all = Payload<v1::ValidateJobResponse>(status)) {
    problems.assign(all->problems().begin(), all->problems().end());
  } else if (auto request = Payload<google::rpc::BadRequest>(status)) {
    for (const auto& violation : request->field_violations()) {
      v1::Problem problem;
      problem.set_severity(v1::Problem::ERROR);
      problem.set_field(violation.field());
      problem.set_message(violation.description());
      v1::FailureReason reason;
      if (v1::FailureReason_Parse(violation.reason(), &reason)) problem.set_reason(reason);
      problems.push_back(std::move(problem));
    }
  }
  return problems;
}

absl::Status InvalidField(std::string_view field, std::string_view message,
                          std::string_view allowed) {
  absl::Status status = absl::InvalidArgumentError(
      absl::StrCat(View(field), ": ", View(message), "; allowed: ", View(allowed)));
  google::rpc::BadRequest request;
  auto* violation = request.add_field_violations();
  violation->set_field(std::string(field));
  violation->set_description(absl::StrCat(View(message), "; allowed: ", View(allowed)));
  violation->set_reason("INVALID_REQUEST");
  SetPayload(status, request);
  return WithReason(status, "INVALID_REQUEST");
}

absl::Status WithReason(
    absl::Status status, std::string_view reason,
    std::initializer_list<std::pair<std::string_view, std::string_view>> metadata) {
  if (status.ok()) return status;
  google::rpc::ErrorInfo info;
  info.set_reason(std::string(reason));
  info.set_domain(std::string(kErrorDomain));
  for (const auto& [key, value] : metadata)
    (*info.mutable_metadata())[std::string(key)] = std::string(value);
  SetPayload(status, info);
  return status;
}

absl::Status WithHelp(absl::Status status, std::string_view description, std::string_view url) {
  if (status.ok()) return status;
  google::rpc::Help help = Payload<google::rpc::Help>(status).value_or(google::rpc::Help());
  auto* link = help.add_links();
  link->set_description(std::string(description));
  link->set_url(std::string(url));
  SetPayload(status, help);
  return status;
}

std::string ReasonOf(const absl::Status& status) {
  auto info = Payload<google::rpc::ErrorInfo>(status);
  return info ? info->reason() : std::string();
}

std::vector<std::pair<std::string, std::string>> HelpOf(const absl::Status& status) {
  std::vector<std::pair<std::string, std::string>> links;
  if (auto help = Payload<google::rpc::Help>(status))
    for (const auto& link : help->links()) links.emplace_back(link.description(), link.url());
  return links;
}

}  // namespace finetuned
