// The curves of report.html.
#pragma once

#include <string>

#include "worker/evaluation/report.h"

namespace finetuned {

// Loss with its evaluations, learning rate, gradient norm, tokens a second, memory: those that have
// values, as HTML.
std::string ReportCharts(const ReportInputs& inputs);

}  // namespace finetuned
