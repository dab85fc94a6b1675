# Chat templates: our Jinja engine, spans of assistant text, built-in templates. ICU gives Python's notion of letters,
# case and white space.
find_library(ICUUC_LIBRARY icuuc REQUIRED)
file(GLOB builtin_template_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/templates/*.cc)
finetuned_library(worker_text_template
  SOURCES builtin_templates.cc chat_template.cc jinja_access.cc jinja_braces.cc jinja_calls.cc jinja_evaluation.cc
    jinja_expression_parser.cc jinja_filters.cc jinja_format.cc jinja_globals.cc jinja_html.cc jinja_interpreter.cc
    jinja_json.cc jinja_lexer.cc jinja_methods.cc jinja_numbers.cc jinja_operators.cc jinja_parser.cc
    jinja_sequence_filters.cc jinja_statements.cc jinja_template.cc jinja_tests.cc jinja_text_filters.cc
    jinja_text_methods.cc jinja_unicode.cc jinja_value.cc ${builtin_template_sources}
  DEPS base nlohmann_json::nlohmann_json ${ICUUC_LIBRARY})
