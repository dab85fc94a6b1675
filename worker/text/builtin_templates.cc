#include "worker/text/builtin_templates.h"

namespace finetuned {

#define TEMPLATE(symbol) extern const BuiltinTemplate kTemplate##symbol;
#include "worker/text/builtin_templates.def"
#undef TEMPLATE

absl::Span<const BuiltinTemplate> BuiltinTemplates() {
#define TEMPLATE(symbol) kTemplate##symbol,
  static const BuiltinTemplate all[] = {
#include "worker/text/builtin_templates.def"
  };
#undef TEMPLATE
  return all;
}

const BuiltinTemplate* FindBuiltinTemplate(std::string_view name) {
  for (const BuiltinTemplate& builtin : BuiltinTemplates()) {
    if (name == builtin.name) return &builtin;
  }
  return nullptr;
}

}  // namespace finetuned
