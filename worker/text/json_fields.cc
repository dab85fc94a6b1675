#include "worker/text/json_fields.h"

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/text/unicode.h"

namespace finetuned {
namespace {

std::string Shown(const nlohmann::json* value) {
  if (value == nullptr) return "is missing";
  // Never written out: nesting may be as deep as the file is long, and writing recurses.
  if (value->is_structured()) return absl::StrCat("is a JSON ", value->type_name());
  std::string text = value->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text = absl::StrCat(text.substr(0, 57), "...");
  return absl::StrCat("is ", text);
}

}  // namespace

absl::StatusOr<JsonFields> JsonFields::Of(const nlohmann::json& value, std::string path) {
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is a JSON ", value.type_name(), "; it must be an object"));
  }
  return JsonFields(value, std::move(path));
}

const nlohmann::json* JsonFields::Find(std::string_view key) const {
  const auto it = value_->find(key);
  return it == value_->end() || it->is_null() ? nullptr : &*it;
}

absl::Status JsonFields::Error(std::string_view key, std::string_view what) const {
  return absl::InvalidArgumentError(path_ + "." + std::string(key) + " " + std::string(what));
}

absl::Status JsonFields::WrongType(std::string_view key, std::string_view wanted) const {
  return Error(key, Shown(Find(key)) + "; it must be " + std::string(wanted));
}

absl::StatusOr<std::string> JsonFields::String(std::string_view key) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr || !value->is_string()) return WrongType(key, "a string");
  return value->get<std::string>();
}

absl::StatusOr<std::string> JsonFields::StringOr(std::string_view key,
                                                 std::string_view fallback) const {
  if (!Has(key)) return std::string(fallback);
  return String(key);
}

absl::StatusOr<bool> JsonFields::BoolOr(std::string_view key, bool fallback) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return WrongType(key, "true or false");
  return value->get<bool>();
}

absl::StatusOr<int64_t> JsonFields::Integer(std::string_view key, int64_t least,
                                            int64_t most) const {
  const nlohmann::json* value = Find(key);
  const std::string wanted = absl::StrCat("an integer from ", least, " to ", most);
  if (value == nullptr || !value->is_number_integer()) return WrongType(key, wanted);
  if (value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(most)) {
    return WrongType(key, wanted);
  }
  const int64_t number = value->get<int64_t>();
  if (number < least || number > most) return WrongType(key, wanted);
  return number;
}

absl::StatusOr<std::string> JsonFields::Character(std::string_view key) const {
  FT_ASSIGN_OR_RETURN(std::string text, String(key));
  if (text.empty() || unicode::SequenceLength(static_cast<unsigned char>(text[0])) != text.size()) {
    return WrongType(key, "exactly one character");
  }
  return text;
}

absl::StatusOr<const nlohmann::json*> JsonFields::Array(std::string_view key) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr || !value->is_array()) return WrongType(key, "an array");
  return value;
}

absl::StatusOr<const nlohmann::json*> JsonFields::Object(std::string_view key) const {
  const nlohmann::json* value = Find(key);
  if (value == nullptr || !value->is_object()) return WrongType(key, "an object");
  return value;
}

absl::Status UnknownComponent(const JsonFields& fields, std::string_view type,
                              std::string_view kind, std::string_view supported) {
  return absl::UnimplementedError(fields.path() + ": " + std::string(kind) + " type '" +
                                  std::string(type) +
                                  "' is not built yet; supported: " + std::string(supported));
}

}  // namespace finetuned
