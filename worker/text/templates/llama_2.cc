#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

constexpr const char* kMarkers[] = {"[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"};

constexpr const char* kSource = R"jinja({% if messages and messages[0].role == 'system' %}
{% set system = '<<SYS>>\n' ~ messages[0].content ~ '\n<</SYS>>\n\n' %}
{% set turns = messages[1:] %}
{% else %}
{% set system = '' %}
{% set turns = messages %}
{% endif %}
{% for message in turns %}
{% if (message.role == 'user') != (loop.index0 is even) %}
{{- raise_exception('roles must alternate: user, assistant, user, …') }}
{% endif %}
{% if message.role == 'user' %}
{{- bos_token ~ '[INST] ' ~ ((system if loop.first else '') ~ message.content) | trim ~ ' [/INST]' }}
{%- elif message.role == 'assistant' %}
{{- ' ' ~ message.content | trim ~ ' ' ~ eos_token }}
{%- else %}
{{- raise_exception('only user and assistant turns after an optional system turn') }}
{% endif %}
{% endfor %}
)jinja";

}  // namespace

extern const BuiltinTemplate kTemplateLlama2;
const BuiltinTemplate kTemplateLlama2{.name = "llama-2",
                                      .description =
                                          "Llama 2 Chat, Code Llama Instruct; roles alternate, the "
                                          "system turn goes into the first user turn",
                                      .source = kSource,
                                      .markers = kMarkers};

}  // namespace finetuned
