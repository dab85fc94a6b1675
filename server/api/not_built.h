// Verbs of the API that are not built yet: what is missing, and the nearest thing that is there.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/errors/rpc_errors.h"

namespace finetuned {

// UNIMPLEMENTED, reason NOT_BUILT. `missing` completes "<verb> is not built yet: "; `nearest` names
// what to use now.
inline absl::Status NotBuilt(const std::string& verb, const std::string& missing,
                             const std::string& nearest, const std::string& command) {
  return WithHelp(WithReason(absl::UnimplementedError(
                                 absl::StrCat(verb, " is not built yet: ", missing, "; ", nearest)),
                             "NOT_BUILT", {{"verb", verb}}),
                  nearest, command);
}

}  // namespace finetuned
