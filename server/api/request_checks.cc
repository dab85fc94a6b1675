#include "server/api/request_checks.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"

namespace finetuned {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr char kLabelCharacters[] = "._/-";

std::string Join(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

absl::Status CheckString(const std::string& path, const std::string& value) {
  if (value.size() > kMaxStringBytes)
    return InvalidField(path, absl::StrCat("the text has ", value.size(), " bytes"),
                        absl::StrCat("at most ", kMaxStringBytes, " bytes"));
  if (value.find('\0') != std::string::npos)
    return InvalidField(path, "the text holds a NUL byte", "text without NUL bytes");
  return absl::OkStatus();
}

absl::Status CheckNumber(const std::string& path, double value) {
  if (std::isfinite(value)) return absl::OkStatus();
  return InvalidField(path, absl::StrCat(path, " is ", value), "a finite number");
}

absl::Status CheckEnum(const std::string& path, const FieldDescriptor* field, int value) {
  if (field->enum_type()->FindValueByNumber(value) != nullptr) return absl::OkStatus();
  std::vector<std::string> names;
  for (int i = 0; i < field->enum_type()->value_count(); ++i)
    names.push_back(field->enum_type()->value(i)->name());
  return InvalidField(path, absl::StrCat(path, " is ", value, ", which this server does not know"),
                      absl::StrJoin(names, ", "));
}

absl::Status CheckMessage(const std::string& path, const Message& message);

absl::Status CheckRepeated(const std::string& path, const FieldDescriptor* field,
                           const Message& message) {
  const Reflection* reflection = message.GetReflection();
  const int count = reflection->FieldSize(message, field);
  const int limit = field->is_map() ? kMaxMapEntries : kMaxRepeated;
  if (count > limit)
    return InvalidField(path, absl::StrCat(path, " has ", count, " entries"),
                        absl::StrCat("at most ", limit));
  for (int i = 0; i < count; ++i) {
    const std::string element = absl::StrCat(path, "[", i, "]");
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING: {
        std::string scratch;
        FT_RETURN_IF_ERROR(CheckString(
            element, reflection->GetRepeatedStringReference(message, field, i, &scratch)));
        break;
      }
      case FieldDescriptor::CPPTYPE_ENUM:
        FT_RETURN_IF_ERROR(
            CheckEnum(element, field, reflection->GetRepeatedEnumValue(message, field, i)));
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        FT_RETURN_IF_ERROR(CheckNumber(element, reflection->GetRepeatedDouble(message, field, i)));
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        FT_RETURN_IF_ERROR(
            CheckMessage(element, reflection->GetRepeatedMessage(message, field, i)));
        break;
      default:
        break;
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMessage(const std::string& path, const Message& message) {
  const Reflection* reflection = message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);  // those that are set
  for (const FieldDescriptor* field : fields) {
    const std::string at = Join(path, field->name());
    if (field->is_repeated()) {
      FT_RETURN_IF_ERROR(CheckRepeated(at, field, message));
      continue;
    }
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING: {
        if (field->type() == FieldDescriptor::TYPE_BYTES) break;
        std::string scratch;
        FT_RETURN_IF_ERROR(
            CheckString(at, reflection->GetStringReference(message, field, &scratch)));
        break;
      }
      case FieldDescriptor::CPPTYPE_ENUM:
        FT_RETURN_IF_ERROR(CheckEnum(at, field, reflection->GetEnumValue(message, field)));
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        FT_RETURN_IF_ERROR(CheckNumber(at, reflection->GetDouble(message, field)));
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        FT_RETURN_IF_ERROR(CheckMessage(at, reflection->GetMessage(message, field)));
        break;
      default:
        break;
    }
  }
  return absl::OkStatus();
}

// Names are cut in error texts, so that a hostile one does not fill the answer.
std::string Shown(const std::string& text) { return absl::CHexEscape(text.substr(0, 80)); }

absl::Status CheckLabels(const google::protobuf::Map<std::string, std::string>& labels) {
  for (const auto& [key, value] : labels) {
    bool good = !key.empty() && key.size() <= 63;
    for (char c : key)
      good = good && (absl::ascii_isalnum(c) ||
                      std::string_view(kLabelCharacters).find(c) != std::string_view::npos);
    if (!good)
      return InvalidField("labels", absl::StrCat("the key '", Shown(key), "' is not a label's"),
                          "1 to 63 of letters, digits and . _ / -");
    if (value.size() > 255)
      return InvalidField(absl::StrCat("labels.", key),
                          absl::StrCat("the value has ", value.size(), " bytes"),
                          "at most 255 bytes");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckShape(const Message& request) { return CheckMessage("", request); }

absl::Status CheckJobId(const std::string& field, const std::string& job_id) {
  if (job_id.empty())
    return InvalidField(field, "the job id is empty", "the id that CreateJob or ListJobs gave");
  bool good = job_id.size() <= 64;
  for (char c : job_id) good = good && (absl::ascii_isalnum(c) || c == '_' || c == '-');
  if (!good)
    return InvalidField(field, absl::StrCat("'", Shown(job_id), "' has not the form of a job id"),
                        "1 to 64 of letters, digits, _ and -");
  return absl::OkStatus();
}

absl::Status CheckSha256(const std::string& field, const std::string& sha256) {
  bool good = sha256.size() == 64;
  for (char c : sha256) good = good && (absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f'));
  if (good) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("'", Shown(sha256), "' is no SHA-256"),
                      "64 lower-case hex digits");
}

absl::Status CheckRange(const std::string& field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(field, " is ", value), absl::StrCat(min, " to ", max));
}

absl::Status CheckCreateJob(const v1::CreateJobRequest& request) {
  FT_RETURN_IF_ERROR(CheckShape(request));
  if (!request.has_spec()) return InvalidField("spec", "the request holds no job", "a JobSpec");
  if (request.request_id().size() > 128)
    return InvalidField("request_id",
                        absl::StrCat("request_id has ", request.request_id().size(), " bytes"),
                        "at most 128, usually a UUID");
  for (char c : request.request_id())
    if (!absl::ascii_isgraph(c))
      return InvalidField("request_id", "request_id holds a blank or control character",
                          "printable ASCII, usually a UUID");
  if (request.owner().size() > 64)
    return InvalidField("owner", absl::StrCat("owner has ", request.owner().size(), " bytes"),
                        "at most 64");
  FT_RETURN_IF_ERROR(CheckRange("priority", request.priority(), -1000, 1000));
  FT_RETURN_IF_ERROR(CheckLabels(request.labels()));
  size_t metadata_bytes = 0;
  for (const auto& [key, value] : request.metadata()) metadata_bytes += key.size() + value.size();
  if (metadata_bytes > kMaxMetadataBytes)
    return InvalidField("metadata", absl::StrCat("metadata has ", metadata_bytes, " bytes"),
                        absl::StrCat("at most ", kMaxMetadataBytes, " bytes in all"));
  for (int i = 0; i < request.after_size(); ++i)
    FT_RETURN_IF_ERROR(CheckJobId(absl::StrCat("after[", i, "]"), request.after(i)));
  return absl::OkStatus();
}

absl::Status CheckUpdateJob(const v1::UpdateJobRequest& request) {
  FT_RETURN_IF_ERROR(CheckShape(request));
  FT_RETURN_IF_ERROR(CheckJobId("job_id", request.job_id()));
  if (!request.has_priority() && !request.set_labels() && !request.has_held())
    return InvalidField("priority", "the request changes nothing",
                        "priority, held, or labels with set_labels");
  if (!request.labels().empty() && !request.set_labels())
    return InvalidField("set_labels", "there are labels but set_labels is false",
                        "true, which replaces all labels");
  if (request.has_priority())
    FT_RETURN_IF_ERROR(CheckRange("priority", request.priority(), -1000, 1000));
  return CheckLabels(request.labels());
}

absl::Status CheckListJobs(const v1::ListJobsRequest& request) {
  FT_RETURN_IF_ERROR(CheckShape(request));
  FT_RETURN_IF_ERROR(CheckRange("page_size", request.page_size(), 0, 1000));
  return CheckLabels(request.labels());
}

}  // namespace finetuned
