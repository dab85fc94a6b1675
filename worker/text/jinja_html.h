// HTML escapes. Internal to the engine.
#pragma once

#include <string>
#include <string_view>

namespace finetuned::jinja {

// & < > ' " as entities, as markupsafe writes them.
std::string EscapeHtml(std::string_view text);

}  // namespace finetuned::jinja
