#include "proto/spec/leaf_value.h"

#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "proto/spec/spec_internal.h"

namespace finetuned {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80   ? 1
                          : lead < 0xC2 ? 0
                          : lead < 0xE0 ? 2
                          : lead < 0xF0 ? 3
                          : lead < 0xF5 ? 4
                                        : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (size_t j = 1; j < length; ++j) {
      if ((static_cast<unsigned char>(text[i + j]) & 0xC0) != 0x80) return false;
    }
    if (length > 2) {  // overlong forms, surrogates, beyond U+10FFFF
      const auto second = static_cast<unsigned char>(text[i + 1]);
      if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
          (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) {
        return false;
      }
    }
    i += length;
  }
  return true;
}

namespace {

bool ParseBool(std::string_view text, bool* out) {
  const std::string lower = absl::AsciiStrToLower(View(text));
  if (lower == "true" || lower == "yes" || lower == "on") {
    *out = true;
    return true;
  }
  if (lower == "false" || lower == "no" || lower == "off") {
    *out = false;
    return true;
  }
  return false;
}

Complaint ParseWhole(std::string_view text, int64_t* out) {
  if (absl::SimpleAtoi(View(text), out)) return "";
  double number;
  if (absl::SimpleAtod(View(text), &number) && std::isfinite(number)) {
    if (number == std::floor(number) && std::abs(number) < 1e15) {  // 1e3, 16.0
      *out = static_cast<int64_t>(number);
      return "";
    }
    return absl::StrCat(Shown(text), " is not a whole number that fits");
  }
  return absl::StrCat(Shown(text), " is not a whole number");
}

Complaint ParseNumber(std::string_view text, double* out) {
  if (!absl::SimpleAtod(View(text), out)) return absl::StrCat(Shown(text), " is not a number");
  if (!std::isfinite(*out)) return absl::StrCat(Shown(text), " is not a finite number");
  return "";
}

// Whole (signed or unsigned by field), number, bool or text field of `message`.
Complaint SetPlain(Message* message, const FieldDescriptor* field, const v1::Key& key,
                   const std::string& text) {
  const Reflection* reflection = message->GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      if (!IsUtf8(text)) return "the text is not UTF-8";
      reflection->SetString(message, field, CanonicalText(key, text));
      return "";
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value;
      if (Complaint bad = ParseNumber(text, &value); !bad.empty()) return bad;
      reflection->SetDouble(message, field, value);
      return "";
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      bool value;
      if (!ParseBool(text, &value)) return absl::StrCat(Shown(text), " is neither true nor false");
      reflection->SetBool(message, field, value);
      return "";
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      uint64_t value;
      if (!absl::SimpleAtoi(View(text), &value)) {
        return absl::StrCat(Shown(text), " is not a whole number from 0 up");
      }
      reflection->SetUInt64(message, field, value);
      return "";
    }
    default: {
      int64_t value;
      if (Complaint bad = ParseWhole(text, &value); !bad.empty()) return bad;
      reflection->SetInt64(message, field, value);
      return "";
    }
  }
}

Complaint SetOrAuto(Message* message, const FieldDescriptor* field, const v1::Key& key,
                    const std::string& text) {
  Message* holder = message->GetReflection()->MutableMessage(message, field);
  const google::protobuf::Descriptor* type = holder->GetDescriptor();
  holder->Clear();
  if (absl::EqualsIgnoreCase(View(text), "auto")) {
    holder->GetReflection()->SetBool(holder, type->FindFieldByName("auto"), true);
    return "";
  }
  Complaint bad = SetPlain(holder, type->FindFieldByName("value"), key, text);
  if (!bad.empty()) message->GetReflection()->ClearField(message, field);
  return bad;
}

Complaint AddSource(Message* message, const FieldDescriptor* field, const SpecValue& item) {
  Message* source = message->GetReflection()->AddMessage(message, field);
  if (item.kind == SpecValue::Kind::kScalar) {  // a bare path
    if (!IsUtf8(item.scalar)) return "the text is not UTF-8";
    source->GetReflection()->SetString(source, source->GetDescriptor()->FindFieldByName("path"),
                                       item.scalar);
    return "";
  }
  if (item.kind != SpecValue::Kind::kMap) return "each source is a path or {path: …, limit: …}";
  for (const auto& [name, value] : item.entries) {
    const KeyInfo* info = FindKey(absl::StrCat("dataset.sources[].", name));
    if (info == nullptr) {
      return absl::StrCat("a source has no key ", Shown(name), "; it has path, weight, limit, ",
                          "format and shape");
    }
    if (LeafIsSet(*source, info->chain.back())) return absl::StrCat(name, " is given twice");
    Complaint bad = SetLeaf(source, info->chain.back(), info->type, info->key, value);
    if (!bad.empty()) return absl::StrCat(name, ": ", bad);
  }
  return "";
}

}  // namespace

Complaint AddMapEntry(Message* message, const FieldDescriptor* field, const v1::Key& key,
                      const std::string& name, const SpecValue& value) {
  if (name.empty()) return "an entry has no name";
  if (!IsUtf8(name)) return "the name of an entry is not UTF-8";
  if (value.kind != SpecValue::Kind::kScalar) {
    return absl::StrCat("entry ", Shown(name), " must be a single value");
  }
  const google::protobuf::Descriptor* entry = field->message_type();
  const Reflection* reflection = message->GetReflection();
  // An entry named again replaces the one before.
  const FieldDescriptor* name_field = entry->map_key();
  for (int i = 0; i < reflection->FieldSize(*message, field); ++i) {
    Message* there = reflection->MutableRepeatedMessage(message, field, i);
    if (there->GetReflection()->GetString(*there, name_field) == name) {
      return SetPlain(there, entry->map_value(), key, value.scalar);
    }
  }
  Message* added = reflection->AddMessage(message, field);
  added->GetReflection()->SetString(added, name_field, name);
  Complaint bad = SetPlain(added, entry->map_value(), key, value.scalar);
  if (!bad.empty()) {
    reflection->RemoveLast(message, field);
    return absl::StrCat("entry ", Shown(name), ": ", bad);
  }
  return "";
}

Complaint SetLeaf(Message* message, const FieldDescriptor* field, KeyType type, const v1::Key& key,
                  const SpecValue& value) {
  const Reflection* reflection = message->GetReflection();
  if (value.kind == SpecValue::Kind::kNull) {
    reflection->ClearField(message, field);
    if (key.default_value().empty() || key.default_value() == "auto" || field->is_repeated()) {
      return "";
    }
    if (field->name() == "early_stopping_patience") {  // null switches it off; 0 in the proto
      reflection->SetInt64(message, field, 0);
      return "";
    }
    return "null has no meaning here";
  }
  const bool one = value.kind == SpecValue::Kind::kScalar;
  switch (type) {
    case KeyType::kText:
    case KeyType::kWhole:
    case KeyType::kNumber:
    case KeyType::kBool:
      if (!one) return "a single value is expected, not a list or a block";
      return SetPlain(message, field, key, value.scalar);
    case KeyType::kWholeOrAuto:
    case KeyType::kNumberOrAuto:
    case KeyType::kBoolOrAuto:
      if (!one) return "a single value is expected, not a list or a block";
      return SetOrAuto(message, field, key, value.scalar);
    case KeyType::kTextList: {
      if (value.kind == SpecValue::Kind::kMap) return "a text or a list is expected, not a block";
      if (one && !IsUtf8(value.scalar)) return "the text is not UTF-8";
      reflection->ClearField(message, field);
      if (one) {
        reflection->AddString(message, field, CanonicalText(key, value.scalar));
        return "";
      }
      for (const SpecValue& item : value.items) {
        if (item.kind != SpecValue::Kind::kScalar) return "each entry of the list must be a text";
        if (!IsUtf8(item.scalar)) return "the text is not UTF-8";
        reflection->AddString(message, field, CanonicalText(key, item.scalar));
      }
      return "";
    }
    case KeyType::kTextMap:
    case KeyType::kWholeMap:
    case KeyType::kNumberMap:
      if (value.kind != SpecValue::Kind::kMap) return "entries {name: value} are expected";
      reflection->ClearField(message, field);
      {
        std::set<std::string> names;
        for (const auto& [name, entry] : value.entries) {
          if (!names.insert(name).second) {
            return absl::StrCat("entry ", Shown(name), " is given twice");
          }
          Complaint bad = AddMapEntry(message, field, key, name, entry);
          if (!bad.empty()) return bad;
        }
      }
      return "";
    case KeyType::kSources:
      reflection->ClearField(message, field);
      if (value.kind != SpecValue::Kind::kList) return AddSource(message, field, value);
      for (const SpecValue& item : value.items) {
        Complaint bad = AddSource(message, field, item);
        if (!bad.empty()) return bad;
      }
      return "";
  }
  return "";
}

namespace {

std::string FormatDouble(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return std::string(buffer, end.ptr);
}

std::string PlainToText(const Message& message, const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->GetString(message, field);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return FormatDouble(reflection->GetDouble(message, field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->GetBool(message, field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(reflection->GetUInt64(message, field));
    default:
      return absl::StrCat(reflection->GetInt64(message, field));
  }
}

}  // namespace

SpecValue LeafToValue(const Message& message, const FieldDescriptor* field, KeyType type) {
  const Reflection* reflection = message.GetReflection();
  switch (type) {
    case KeyType::kWholeOrAuto:
    case KeyType::kNumberOrAuto:
    case KeyType::kBoolOrAuto: {
      const Message& holder = reflection->GetMessage(message, field);
      const FieldDescriptor* value = holder.GetDescriptor()->FindFieldByName("value");
      if (!holder.GetReflection()->HasField(holder, value)) return SpecValue::Scalar("auto");
      return SpecValue::Scalar(PlainToText(holder, value));
    }
    case KeyType::kTextList: {
      SpecValue list = SpecValue::List();
      for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
        list.items.push_back(SpecValue::Scalar(reflection->GetRepeatedString(message, field, i)));
      }
      return list;
    }
    case KeyType::kTextMap:
    case KeyType::kWholeMap:
    case KeyType::kNumberMap: {
      std::map<std::string, std::string> sorted;
      for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
        const Message& entry = reflection->GetRepeatedMessage(message, field, i);
        sorted[entry.GetReflection()->GetString(entry, field->message_type()->map_key())] =
            PlainToText(entry, field->message_type()->map_value());
      }
      SpecValue map = SpecValue::Map();
      for (const auto& [name, text] : sorted)
        map.entries.emplace_back(name, SpecValue::Scalar(text));
      return map;
    }
    case KeyType::kSources: {
      SpecValue list = SpecValue::List();
      for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
        const Message& source = reflection->GetRepeatedMessage(message, field, i);
        SpecValue item = SpecValue::Map();
        for (const KeyInfo& info : AllKeys()) {
          if (!info.in_list || !LeafIsSet(source, info.chain.back())) continue;
          item.entries.emplace_back(info.chain.back()->name(),
                                    LeafToValue(source, info.chain.back(), info.type));
        }
        list.items.push_back(std::move(item));
      }
      return list;
    }
    default:
      return SpecValue::Scalar(PlainToText(message, field));
  }
}

const Message& ParentOf(const v1::JobSpec& spec, const KeyInfo& info) {
  const Message* message = &spec;
  for (size_t i = 0; i + 1 < info.chain.size(); ++i) {
    message = &message->GetReflection()->GetMessage(*message, info.chain[i]);
  }
  return *message;
}

Message* MutableParent(v1::JobSpec* spec, const KeyInfo& info) {
  Message* message = spec;
  for (size_t i = 0; i + 1 < info.chain.size(); ++i) {
    message = message->GetReflection()->MutableMessage(message, info.chain[i]);
  }
  return message;
}

bool LeafIsSet(const Message& message, const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  if (field->is_repeated()) return reflection->FieldSize(message, field) > 0;
  if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    if (!reflection->HasField(message, field)) return false;
    const Message& holder = reflection->GetMessage(message, field);
    return holder.GetReflection()->HasOneof(holder, holder.GetDescriptor()->oneof_decl(0));
  }
  return reflection->HasField(message, field);  // without presence: not the empty string
}

std::string CanonicalText(const v1::Key& key, const std::string& text) {
  for (const std::string& alias : key.value_aliases()) {
    const auto [from, to] =
        std::pair<std::string, std::string>(absl::StrSplit(alias, absl::MaxSplits('=', 1)));
    if (absl::EqualsIgnoreCase(from, text)) return to;
  }
  for (const std::string& allowed : key.allowed()) {
    if (absl::EqualsIgnoreCase(allowed, text)) return allowed;
  }
  return text;
}

}  // namespace finetuned
