finetuned_test(worker_text_jinja_test LABEL unit
  SOURCES jinja_language_test.cc jinja_limits_test.cc
  DEPS worker_text_template)
finetuned_test(worker_text_chat_template_test LABEL unit
  SOURCES chat_template_test.cc
  DEPS worker_text_template)
finetuned_python_test(worker_text_template_parity LABEL reference
  SCRIPT tests/reference/template_parity.py)
