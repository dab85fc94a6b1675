// One attempt of a job: the recipe for its kind, run once, told to the server through the Reporter.
#pragma once

#include <string>

#include "finetuned/v1/worker.pb.h"
#include "worker/job/reporter.h"

namespace finetuned {

// Runs the whole attempt and returns its last word. Never throws: this is where exceptions of tensor code end.
v1::AttemptEnd RunAttempt(const v1::AttemptPlan& plan, Reporter& reporter);

// Answers a short mode (validate, inspect, preview, devices). Never throws; problems are in the response.
v1::QueryResponse AnswerQuery(const v1::QueryRequest& request);

}  // namespace finetuned
