#include "worker/job/attempt.h"

#include "worker/job/finetune.h"

namespace finetuned {

v1::AttemptEnd RunAttempt(const v1::AttemptPlan& plan, Reporter& reporter) {
  if (plan.spec().kind() == "finetune") return RunFinetune(plan, reporter);
  v1::AttemptEnd end;
  end.set_outcome(v1::AttemptEnd::FAILED);
  end.mutable_failure()->set_reason(v1::INVALID_SPEC);
  end.mutable_failure()->set_field("kind");
  end.mutable_failure()->set_message("jobs of kind " + plan.spec().kind() + " are not built yet; kind finetune exports what its export block names");
  return end;
}

}  // namespace finetuned
