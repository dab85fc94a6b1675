// The filters that work on sequences, for the table in jinja_filters.cc. Internal to the engine.
#pragma once

#include <string_view>
#include <vector>

#include "worker/text/jinja_interpreter.h"

namespace finetuned::jinja {

struct SequenceFilter {
  std::string_view name;
  FilterFunction function;
};
std::vector<SequenceFilter> SequenceFilters();

}  // namespace finetuned::jinja
