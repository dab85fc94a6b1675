// Shared by mapping.cc and validate.cc; not for use outside proto/spec.
#pragma once

#include <string>
#include <string_view>

#include "absl/strings/string_view.h"
#include "finetuned/v1/job_spec.pb.h"
#include "proto/spec/key_table.h"

namespace google::protobuf {
class Message;
}

namespace finetuned {

// Debian builds abseil with a string_view of its own.
inline absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// Whether a key has a value: repeated not empty, oneof chosen, optional present, plain text not "".
bool LeafIsSet(const google::protobuf::Message& message,
               const google::protobuf::FieldDescriptor* field);

// The message that holds the key's field (a default instance where the block is absent). Not for
// keys of a list.
const google::protobuf::Message& ParentOf(const v1::JobSpec& spec, const KeyInfo& info);

// Value aliases replaced and allowed values brought to their own case: "adamw_torch" → "adamw",
// "Q8_0" → "q8_0".
std::string CanonicalText(const v1::Key& key, const std::string& text);

}  // namespace finetuned
