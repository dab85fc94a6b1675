#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

constexpr const char* kMarkers[] = {"<|system|>", "<|user|>", "<|assistant|>", "<|end|>"};

constexpr const char* kSource = R"jinja({%- for message in messages %}
{%- if message.role not in ['system', 'user', 'assistant'] %}
{{- raise_exception('only system, user and assistant turns') }}
{%- endif %}
{{- '<|' ~ message.role ~ '|>\n' ~ message.content ~ '<|end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|assistant|>\n' }}
{%- else %}
{{- eos_token }}
{%- endif %}
)jinja";

}  // namespace

extern const BuiltinTemplate kTemplatePhi;
const BuiltinTemplate kTemplatePhi{
    .name = "phi", .description = "Phi-3, Phi-3.5", .source = kSource, .markers = kMarkers};

}  // namespace finetuned
