// Messages of the API as JSON values, for the files a job leaves.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"

namespace finetuned {

// Proto ↔ nlohmann JSON with proto field names; FromJson: INVALID_ARGUMENT for what is no such message.
std::string MessageToJsonText(const google::protobuf::Message& message);  // on one line
nlohmann::json MessageToJson(const google::protobuf::Message& message);
absl::Status MessageFromJson(const nlohmann::json& json, google::protobuf::Message* message);

}  // namespace finetuned
