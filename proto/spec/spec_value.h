// A YAML-like value tree: what lies between text (a job file, a --set argument) and the JobSpec
// proto. The client fills it from yaml-cpp; proto/spec itself needs no YAML library.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace finetuned {

struct SpecValue {
  enum class Kind { kNull, kScalar, kList, kMap };
  Kind kind = Kind::kNull;
  // kScalar: the text as written, quotes removed. No type is guessed: the key decides what "no" or
  // "8" means.
  std::string scalar;
  std::vector<SpecValue> items;
  // In the order written; a key may occur twice (the mapping reports it).
  std::vector<std::pair<std::string, SpecValue>> entries;
  // 1-based line of the file; 0 when there is none (--set).
  int line = 0;

  static SpecValue Scalar(std::string text) {
    SpecValue value;
    value.kind = Kind::kScalar;
    value.scalar = std::move(text);
    return value;
  }
  static SpecValue List() {
    SpecValue value;
    value.kind = Kind::kList;
    return value;
  }
  static SpecValue Map() {
    SpecValue value;
    value.kind = Kind::kMap;
    return value;
  }
};

// Parses one value in YAML flow style: a plain or quoted scalar, [a, b] or {k: v}. Plain "null",
// "~" and the empty text are null. INVALID_ARGUMENT with the position for unbalanced brackets or
// quotes, for more than 8 levels of nesting and for more than 1 MiB of text.
absl::StatusOr<SpecValue> ParseFlowValue(std::string_view text);

}  // namespace finetuned
