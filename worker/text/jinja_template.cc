#include "worker/text/jinja.h"
#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {

Template::Template(std::unique_ptr<const Syntax> syntax) : syntax_(std::move(syntax)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

absl::StatusOr<Template> Template::Parse(std::string_view source, std::string_view name) {
  absl::StatusOr<std::unique_ptr<Syntax>> syntax = ParseTemplate(source, name);
  if (!syntax.ok()) return syntax.status();
  return Template(std::move(*syntax));
}

absl::StatusOr<Rendering> Template::Render(const nlohmann::ordered_json& variables,
                                           const RenderSettings& settings,
                                           std::string_view messages_name) const {
  if (!variables.is_object() && !variables.is_null()) {
    return absl::InvalidArgumentError("the variables of a template must be a JSON object");
  }
  return Interpreter(*syntax_, settings).Run(variables, messages_name);
}

bool Template::has_generation_block() const { return syntax_->has_generation; }

}  // namespace finetuned::jinja
