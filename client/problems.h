// The answer of ValidateJob and estimates for people.
#pragma once

#include <map>
#include <string>

#include "client/cli.h"

namespace finetuned {

// Asks the server about a job and prints problems and the estimate. 0 without errors, else 2.
int ValidateAndPrint(Context& context, const v1::JobSpec& spec, const std::string& file,
                     const std::map<std::string, int>& lines);

// Memory by category, steps, time, parameters.
void PrintEstimate(const Output& out, const v1::Estimate& estimate);

}  // namespace finetuned
