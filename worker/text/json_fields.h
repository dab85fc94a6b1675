// Typed access to one object of a tokenizer.json, with errors that name the field.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace finetuned {

// A view of one component, for example `pre_tokenizer.pretokenizers[1]`. Absent and null fields are
// the same thing. Every getter: INVALID_ARGUMENT "<path>.<key> is …; it must be …" when the value
// has another type.
class JsonFields {
 public:
  // INVALID_ARGUMENT when `value` is no object.
  static absl::StatusOr<JsonFields> Of(const nlohmann::json& value, std::string path);

  const std::string& path() const { return path_; }
  bool Has(std::string_view key) const { return Find(key) != nullptr; }
  // The value, or null when absent.
  const nlohmann::json* Find(std::string_view key) const;

  absl::StatusOr<std::string> String(std::string_view key) const;  // required
  absl::StatusOr<std::string> StringOr(std::string_view key, std::string_view fallback) const;
  absl::StatusOr<bool> BoolOr(std::string_view key, bool fallback) const;
  absl::StatusOr<int64_t> Integer(std::string_view key, int64_t least,
                                  int64_t most) const;  // required
  // Required, exactly one code point; the code point's UTF-8.
  absl::StatusOr<std::string> Character(std::string_view key) const;
  absl::StatusOr<const nlohmann::json*> Array(std::string_view key) const;   // required
  absl::StatusOr<const nlohmann::json*> Object(std::string_view key) const;  // required

  // INVALID_ARGUMENT "<path>.<key> <what>".
  absl::Status Error(std::string_view key, std::string_view what) const;

 private:
  JsonFields(const nlohmann::json& value, std::string path)
      : value_(&value), path_(std::move(path)) {}
  absl::Status WrongType(std::string_view key, std::string_view wanted) const;

  const nlohmann::json* value_;
  std::string path_;
};

// A component of a type this library does not have: names it and what there is. UNIMPLEMENTED.
absl::Status UnknownComponent(const JsonFields& fields, std::string_view type,
                              std::string_view kind, std::string_view supported);

}  // namespace finetuned
