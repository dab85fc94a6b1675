// Defaults filled in, and the fingerprint of what then stands there.
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/message.h"
#include "proto/base/sha256.h"
#include "proto/spec/leaf_value.h"
#include "proto/spec/spec.h"

namespace finetuned {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

void FillDefault(Message* message, const FieldDescriptor* field, const KeyInfo& info) {
  if (info.key.default_value().empty() || LeafIsSet(*message, field)) return;
  SetLeaf(message, field, info.type, info.key, SpecValue::Scalar(info.key.default_value()));
}

void Canonicalize(Message* message, const FieldDescriptor* field, const v1::Key& key) {
  if (field->is_map() || field->cpp_type() != FieldDescriptor::CPPTYPE_STRING) return;
  const Reflection* reflection = message->GetReflection();
  if (field->is_repeated()) {
    for (int i = 0; i < reflection->FieldSize(*message, field); ++i) {
      reflection->SetRepeatedString(
          message, field, i, CanonicalText(key, reflection->GetRepeatedString(*message, field, i)));
    }
  } else if (LeafIsSet(*message, field)) {
    reflection->SetString(message, field,
                          CanonicalText(key, reflection->GetString(*message, field)));
  }
}

}  // namespace

v1::JobSpec ResolveDefaults(const v1::JobSpec& spec) {
  v1::JobSpec resolved = spec;
  v1::Split* split = resolved.mutable_dataset()->mutable_split();
  if (split->has_validation_path() && !split->has_method()) split->set_method("file");
  for (const KeyInfo& info : AllKeys()) {
    if (info.in_list) {
      for (v1::DatasetSource& source : *resolved.mutable_dataset()->mutable_sources()) {
        Canonicalize(&source, info.chain.back(), info.key);
        FillDefault(&source, info.chain.back(), info);
      }
      continue;
    }
    if (info.key.default_value().empty() && info.key.allowed_size() == 0) continue;
    Message* parent = MutableParent(&resolved, info);
    Canonicalize(parent, info.chain.back(), info.key);
    FillDefault(parent, info.chain.back(), info);
  }
  return resolved;
}

std::string SpecFingerprint(const v1::JobSpec& spec) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // maps in key order
    spec.SerializeToCodedStream(&coded);
  }
  return Sha256Hex(bytes);
}

}  // namespace finetuned
