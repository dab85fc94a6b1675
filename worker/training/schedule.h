// Learning-rate schedules, equal to transformers' get_scheduler (optimization.py) for the same name: linear warmup from 0,
// then the named decay.
#pragma once

#include <cstdint>
#include <string>

#include "finetuned/v1/job_spec.pb.h"

namespace finetuned {

struct Schedule {
  std::string type = "cosine";  // cosine | linear | polynomial | constant | constant_with_warmup
  double peak = 2e-4;
  double min_ratio = 0;  // the decay ends at peak · min_ratio (polynomial, too, in place of transformers' fixed 1e-7)
  int64_t warmup_steps = 0;
  int64_t total_steps = 1;

  // Rate of the update with this 0-based index. Past total_steps: the final rate.
  double At(int64_t update) const;
};

// `spec` resolved. warmup_steps wins over warmup_ratio; the ratio is rounded up, as transformers does.
Schedule MakeSchedule(const v1::JobSpec& spec, int64_t total_steps);

}  // namespace finetuned
