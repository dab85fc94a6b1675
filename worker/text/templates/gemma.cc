#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

constexpr const char* kMarkers[] = {"<start_of_turn>", "<end_of_turn>"};

constexpr const char* kSource = R"jinja({{- bos_token }}
{%- for message in messages %}
{%- if message.role == 'system' %}
{{- raise_exception('System role not supported') }}
{%- endif %}
{%- if (message.role == 'user') != (loop.index0 is even) %}
{{- raise_exception('roles must alternate: user, assistant, user, …') }}
{%- endif %}
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<start_of_turn>' ~ role ~ '\n' ~ message.content | trim ~ '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<start_of_turn>model\n' }}
{%- endif %}
)jinja";

}  // namespace

extern const BuiltinTemplate kTemplateGemma;
const BuiltinTemplate kTemplateGemma{
    .name = "gemma",
    .description = "Gemma 1, 2, 3; no system role, roles alternate",
    .source = kSource,
    .markers = kMarkers};

}  // namespace finetuned
