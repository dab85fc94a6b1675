// The end of a job for people: what came out, or why nothing did.
#pragma once

#include <string>

#include "client/output.h"

namespace finetuned {

// Base against tuned, sample answers, artifacts and the verdict; for kind generate the answers
// alone.
void PrintResult(const Output& out, const v1::Job& job);
// A box on standard error: reason, stage, message, causes, field, and suggested changes as command
// lines.
void PrintFailure(const Output& out, const v1::Job& job);
// Both by state, and the exit code: 0 succeeded, 1 failed or cancelled.
int PrintEnd(const Output& out, const v1::Job& job);

}  // namespace finetuned
