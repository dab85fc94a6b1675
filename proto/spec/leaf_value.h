// One key's value: text and small value trees → its protobuf field, and back. Internal to
// proto/spec.
//
// `message` is the message that holds `field`: ParentOf or MutableParent of the key, or a source of
// a list. Pure and thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "finetuned/v1/job_spec.pb.h"
#include "proto/spec/key_table.h"
#include "proto/spec/spec_value.h"

namespace google::protobuf {
class Message;
}

namespace finetuned {

// The message that holds the key's field (a default instance where the block is absent). Not for
// keys of a list.
const google::protobuf::Message& ParentOf(const v1::JobSpec& spec, const KeyInfo& info);
google::protobuf::Message* MutableParent(v1::JobSpec* spec, const KeyInfo& info);

// What is wrong with a value, for "lora.r: <this>"; empty when it was set.
using Complaint = std::string;

// Sets the field from a value as written; null unsets it, or is complained of where the default
// would come back. After a complaint the field may be set in part.
Complaint SetLeaf(google::protobuf::Message* message,
                  const google::protobuf::FieldDescriptor* field, KeyType type, const v1::Key& key,
                  const SpecValue& value);
// Sets one entry of a map field; the others stay.
Complaint AddMapEntry(google::protobuf::Message* message,
                      const google::protobuf::FieldDescriptor* field, const v1::Key& key,
                      const std::string& name, const SpecValue& value);

// The value of a field that is set; SetLeaf of it gives an equal field.
SpecValue LeafToValue(const google::protobuf::Message& message,
                      const google::protobuf::FieldDescriptor* field, KeyType type);

// Whether a key has a value: repeated not empty, oneof chosen, optional present, plain text not "".
bool LeafIsSet(const google::protobuf::Message& message,
               const google::protobuf::FieldDescriptor* field);

// Value aliases replaced and allowed values brought to their own case: "adamw_torch" → "adamw",
// "Q8_0" → "q8_0".
std::string CanonicalText(const v1::Key& key, const std::string& text);

// Protobuf carries text as UTF-8 only.
bool IsUtf8(std::string_view text);

}  // namespace finetuned
