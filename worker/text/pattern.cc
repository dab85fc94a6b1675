#include "worker/text/pattern.h"

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"

namespace finetuned {

absl::StatusOr<Pattern> Pattern::FromJson(const JsonFields& component) {
  FT_ASSIGN_OR_RETURN(const nlohmann::json* value, component.Object("pattern"));
  FT_ASSIGN_OR_RETURN(const JsonFields fields,
                      JsonFields::Of(*value, absl::StrCat(component.path(), ".pattern")));
  Pattern pattern;
  if (fields.Has("String")) {
    FT_ASSIGN_OR_RETURN(pattern.literal_, fields.String("String"));
    if (!pattern.literal_.empty()) return pattern;
  } else if (fields.Has("Regex")) {
    FT_ASSIGN_OR_RETURN(pattern.regex_source_, fields.String("Regex"));
  } else {
    return component.Error("pattern", "has neither 'String' nor 'Regex'");
  }
  absl::StatusOr<std::unique_ptr<Regex>> compiled = Regex::Compile(pattern.regex_source_);
  if (!compiled.ok())
    return component.Error("pattern", absl::StrCat("is wrong: ", compiled.status().message()));
  pattern.regex_ = *std::move(compiled);
  return pattern;
}

Pattern Pattern::Literal(std::string text) {
  Pattern pattern;
  pattern.literal_ = std::move(text);
  return pattern;
}

void Pattern::FindAll(std::string_view text, std::vector<Span>& matches) const {
  if (regex_ != nullptr) return regex_->FindAll(text, matches);
  for (size_t at = 0; (at = text.find(literal_, at)) != std::string_view::npos;
       at += literal_.size()) {
    matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + literal_.size())});
  }
}

}  // namespace finetuned
