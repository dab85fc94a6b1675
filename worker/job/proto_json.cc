#include "worker/job/proto_json.h"

#include <google/protobuf/util/json_util.h>

#include <string>

namespace finetuned {

using nlohmann::json;

std::string MessageToJsonText(const google::protobuf::Message& message) {
  std::string text;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  // Cannot fail for messages of this API: they hold no google.protobuf.Any.
  if (!google::protobuf::util::MessageToJsonString(message, &text, options).ok()) text = "{}";
  return text;
}

json MessageToJson(const google::protobuf::Message& message) {
  return json::parse(MessageToJsonText(message), nullptr, /*allow_exceptions=*/false);
}

absl::Status MessageFromJson(const json& value, google::protobuf::Message* message) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto status = google::protobuf::util::JsonStringToMessage(value.dump(), message, options);
  if (!status.ok()) return absl::InvalidArgumentError(std::string(status.message()));
  return absl::OkStatus();
}

}  // namespace finetuned
