// What lies under the model roots: names that a job's model_name_or_path may use. Nothing is
// parsed: a directory that holds a config.json is listed, whether the worker can train it or not.
//
// Threads: pure function; blocks on disk.
#pragma once

#include <string>
#include <vector>

#include "finetuned/v1/service.pb.h"

namespace finetuned {

// Directories up to three levels below each root, sorted by name; links are not followed out of a
// root. The Hugging Face cache layout (models--ORG--NAME/snapshots/REVISION) appears as ORG/NAME.
// At most 1,000 entries.
v1::ListModelsResponse ListModelsUnder(const std::vector<std::string>& roots);

}  // namespace finetuned
