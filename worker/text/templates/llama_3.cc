#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

constexpr const char* kMarkers[] = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"};

constexpr const char* kSource = R"jinja({{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\n\n' ~ message.content | trim ~ '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
)jinja";

}  // namespace

extern const BuiltinTemplate kTemplateLlama3;
const BuiltinTemplate kTemplateLlama3{
    .name = "llama-3",
    .description = "Llama 3, 3.1, 3.2, 3.3 Instruct (without their tool syntax)",
    .source = kSource,
    .markers = kMarkers};

}  // namespace finetuned
