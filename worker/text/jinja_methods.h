// What methods and global functions share: tables by name and checks of arguments. Internal to the
// engine.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {

using MethodTable = absl::flat_hash_map<std::string_view, MethodFunction>;

// Methods of str by name (jinja_text_methods.cc), for FindMethod.
const MethodTable& TextMethods();

// The checks below Fail() and return false where they do not hold.
bool NeedText(Interpreter& interpreter, std::string_view function, const Value& value);
bool NoArguments(Interpreter& interpreter, const Args& args);
// Interpreter::Bind for Python methods in C, which take their arguments by position only.
bool BindPositional(Interpreter& interpreter, std::string_view function, const Args& args,
                    std::initializer_list<std::string_view> names, size_t required,
                    std::vector<Value>* out);

}  // namespace finetuned::jinja
