#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

constexpr const char* kMarkers[] = {"[INST]", "[/INST]"};

constexpr const char* kSource = R"jinja({% if messages and messages[0].role == 'system' %}
{% set system = messages[0].content ~ '\n\n' %}
{% set turns = messages[1:] %}
{% else %}
{% set system = '' %}
{% set turns = messages %}
{% endif %}
{% set last_user = namespace(index=-1) %}
{% for message in turns %}
{% if (message.role == 'user') != (loop.index0 is even) %}
{{- raise_exception('roles must alternate: user, assistant, user, …') }}
{% endif %}
{% if message.role == 'user' %}
{% set last_user.index = loop.index0 %}
{% endif %}
{% endfor %}
{{- bos_token }}
{%- for message in turns %}
{% if message.role == 'user' %}
{{- '[INST] ' ~ (system if loop.index0 == last_user.index else '') ~ message.content ~ '[/INST]' }}
{%- elif message.role == 'assistant' %}
{{- ' ' ~ message.content | trim ~ eos_token }}
{%- else %}
{{- raise_exception('only user and assistant turns after an optional system turn') }}
{% endif %}
{% endfor %}
)jinja";

}  // namespace

extern const BuiltinTemplate kTemplateMistral;
const BuiltinTemplate kTemplateMistral{.name = "mistral",
                                       .description =
                                           "Mistral 7B v0.3, Mixtral (without tool syntax); the "
                                           "system turn goes into the last user turn",
                                       .source = kSource,
                                       .markers = kMarkers};

}  // namespace finetuned
