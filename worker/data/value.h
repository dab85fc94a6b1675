// One record as a format reader hands it on: a JSON-like tree whose strings are views into the
// reader's buffers.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace finetuned {

struct Value {
  enum class Kind : uint8_t { kNull, kBool, kInt, kDouble, kNumberText, kString, kArray, kObject };

  Kind kind = Kind::kNull;
  bool boolean = false;
  int64_t integer = 0;
  double number = 0;
  std::string_view text;               // kString; kNumberText: a number beyond 64 bits, as written
  std::vector<std::string_view> keys;  // kObject: names, parallel to items, in file order
  std::vector<Value> items;            // kArray, kObject

  bool is_null() const { return kind == Kind::kNull; }
  bool is_string() const { return kind == Kind::kString; }
  bool is_array() const { return kind == Kind::kArray; }
  bool is_object() const { return kind == Kind::kObject; }
  bool is_number() const {
    return kind == Kind::kInt || kind == Kind::kDouble || kind == Kind::kNumberText;
  }

  // Member of an object, nullptr when absent. Of duplicate keys the last wins, as in Python's json.
  const Value* Find(std::string_view key) const;
  // Find, but null members (NaN included) count as absent.
  const Value* FindPresent(std::string_view key) const;
  // True when an object holds a key twice (objects of up to 64 keys are checked).
  bool HasDuplicateKeys() const;
};

// A scalar as text: strings as they are, numbers in their shortest form, booleans as JSON writes
// them, lists and objects as compact JSON, null as "".
std::string ToText(const Value& value);

// Compact JSON, non-ASCII characters kept. Ill-formed UTF-8 is replaced by U+FFFD.
std::string ToJson(const Value& value);
void AppendJsonString(std::string_view text, std::string& out);

}  // namespace finetuned
