#include "worker/job/attempt.h"

#include "worker/job/export_job.h"
#include "worker/job/finetune.h"
#include "worker/job/generate_job.h"

namespace finetuned {

v1::AttemptEnd RunAttempt(const v1::AttemptPlan& plan, Reporter& reporter) {
  const std::string& kind = plan.spec().kind();
  if (kind == "finetune") return RunFinetune(plan, reporter);
  if (kind == "export" || kind == "merge") return RunExport(plan, reporter);
  if (kind == "generate") return RunGenerate(plan, reporter);
  v1::AttemptEnd end;
  end.set_outcome(v1::AttemptEnd::FAILED);
  end.mutable_failure()->set_reason(v1::INVALID_SPEC);
  end.mutable_failure()->set_field("kind");
  end.mutable_failure()->set_message("jobs of kind " + kind + " are not built yet; allowed: finetune, export, merge, generate");
  return end;
}

}  // namespace finetuned
