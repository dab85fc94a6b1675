// Chat templates for tokenizers that bring none. One file in templates/ defines each, one line in
// builtin_templates.def lists it.
#pragma once

#include <string_view>

#include "absl/types/span.h"

namespace finetuned {

struct BuiltinTemplate {
  const char* name;         // as dataset.chat_template takes it
  const char* description;  // one line: which models speak it
  const char* source;       // Jinja
  // Control strings it writes, besides bos_token and eos_token. Those that are no single special
  // token of the tokenizer at hand would be learnt as ordinary text.
  absl::Span<const char* const> markers;
};

// In the order of builtin_templates.def.
absl::Span<const BuiltinTemplate> BuiltinTemplates();

// Null if there is none of this name.
const BuiltinTemplate* FindBuiltinTemplate(std::string_view name);

}  // namespace finetuned
