#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

constexpr const char* kSource = R"jinja({{- bos_token }}
{%- if messages and messages[0].role == 'system' %}
{{- messages[0].content ~ '\n\n' }}
{%- set turns = messages[1:] %}
{%- else %}
{{- 'Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n' }}
{%- set turns = messages %}
{%- endif %}
{%- for message in turns %}
{%- if message.role == 'user' %}
{{- '### Instruction:\n' ~ message.content ~ '\n\n' }}
{%- elif message.role == 'assistant' %}
{{- '### Response:\n' ~ message.content ~ eos_token ~ ('' if loop.last else '\n\n') }}
{%- else %}
{{- raise_exception('only user and assistant turns after an optional system turn') }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '### Response:\n' }}
{%- endif %}
)jinja";

}  // namespace

extern const BuiltinTemplate kTemplateAlpaca;
const BuiltinTemplate kTemplateAlpaca{
    .name = "alpaca",
    .description = "Stanford Alpaca: for base models without chat tokens",
    .source = kSource,
    .markers = {}};

}  // namespace finetuned
