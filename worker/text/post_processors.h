// Post-processors of a tokenizer.json: which special tokens stand around a text.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace finetuned {

// What `add_special_tokens` puts before and behind the ids of one text. A template that repeats or
// leaves out the text is refused, for no model wants it.
struct SpecialTokens {
  std::vector<int32_t> before, after;
};

// Reads ByteLevel (adds nothing), TemplateProcessing, BertProcessing, RobertaProcessing and Sequence. JSON null adds nothing. UNIMPLEMENTED names an unknown type,
// INVALID_ARGUMENT a bad field.
absl::StatusOr<SpecialTokens> ReadPostProcessor(const nlohmann::json& value,
                                                const std::string& path);

}  // namespace finetuned
