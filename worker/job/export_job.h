// The recipe of kinds export and merge: an adapter of another job, or a PEFT directory, in the formats of spec.export:
//
//   merging → exporting
#pragma once

#include "finetuned/v1/worker.pb.h"
#include "worker/job/reporter.h"

namespace finetuned {

v1::AttemptEnd RunExport(const v1::AttemptPlan& plan, Reporter& reporter);

}  // namespace finetuned
