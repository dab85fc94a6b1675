finetuned_test(worker_text_jinja_test LABEL unit
  SOURCES jinja_language_test.cc jinja_limits_test.cc
  DEPS worker_text_template)
finetuned_test(worker_text_chat_template_test LABEL unit
  SOURCES chat_template_test.cc
  DEPS worker_text_template)
finetuned_test(worker_text_modes_test LABEL unit
  SOURCES text_modes_test.cc
  DEPS worker_text_modes)

# finetune-worker's text modes without torch, which takes a second to load.
add_executable(text_tool text_tool.cc)
target_link_libraries(text_tool PRIVATE worker_text_modes)
set_target_properties(text_tool PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
finetuned_python_test(worker_text_template_parity LABEL reference
  SCRIPT tests/reference/template_parity.py)
