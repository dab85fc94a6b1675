#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

constexpr const char* kMarkers[] = {"<|im_start|>", "<|im_end|>"};

constexpr const char* kSource = R"jinja({%- for message in messages %}
{{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
)jinja";

}  // namespace

extern const BuiltinTemplate kTemplateChatml;
const BuiltinTemplate kTemplateChatml{.name = "chatml",
                                      .description = "ChatML: Qwen, SmolLM2, Yi, many fine-tunes",
                                      .source = kSource,
                                      .markers = kMarkers};

}  // namespace finetuned
