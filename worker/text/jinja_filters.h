// The filters that work on text and on sequences, for the table in jinja_filters.cc. Internal to
// the engine.
#pragma once

#include <string_view>
#include <vector>

#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {

struct NamedFilter {
  std::string_view name;
  FilterFunction function;
};
std::vector<NamedFilter> TextFilters();
std::vector<NamedFilter> SequenceFilters();

}  // namespace finetuned::jinja
