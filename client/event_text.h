// One job event as one line for people.
#pragma once

#include <string>

#include "client/output.h"

namespace finetuned {

// "stage training" / "step 20/450  loss 2.0134 …". Empty for events that say nothing by themselves
// (a result).
std::string EventText(const v1::JobEvent& event);
Color EventColor(const v1::JobEvent& event);

// "step 120/450  loss 1.2340  lr 1.9e-04  1.2k tok/s  1.9 GiB  ETA 3m12s"
std::string MetricsText(const v1::TrainingMetrics& metrics);
// "preparing data  1200/5000 records  24 %  ETA 3s"
std::string ProgressText(const v1::Progress& progress);

}  // namespace finetuned
