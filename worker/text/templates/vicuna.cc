#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

constexpr const char* kSource = R"jinja({{- bos_token }}
{%- if messages and messages[0].role == 'system' %}
{{- messages[0].content ~ ' ' }}
{%- set turns = messages[1:] %}
{%- else %}
{{- "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions. " }}
{%- set turns = messages %}
{%- endif %}
{%- for message in turns %}
{%- if message.role == 'user' %}
{{- 'USER: ' ~ message.content ~ ' ' }}
{%- elif message.role == 'assistant' %}
{{- 'ASSISTANT: ' ~ message.content ~ eos_token }}
{%- else %}
{{- raise_exception('only user and assistant turns after an optional system turn') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- 'ASSISTANT:' }}
{%- endif %}
)jinja";

}  // namespace

extern const BuiltinTemplate kTemplateVicuna;
const BuiltinTemplate kTemplateVicuna{
    .name = "vicuna", .description = "Vicuna 1.1 and 1.5", .source = kSource, .markers = {}};

}  // namespace finetuned
