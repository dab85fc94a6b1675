// `finetuned check`: what would keep this configuration from working, found before the server
// starts.
#pragma once

#include <string>
#include <vector>

#include "server/config.h"
#include "server/launcher/launcher.h"

namespace finetuned {

struct CheckResult {
  enum class Verdict { kOk, kWarning, kError };
  Verdict verdict = Verdict::kOk;
  std::string subject;  // "data-dir"
  std::string text;     // what was found
  std::string cure;     // empty when all is well
};

// Data directory (there or can be made, writable, free space), roots, worker (runs and answers),
// devices. Blocks: the worker is asked for its devices, at most a minute. Changes nothing but for a
// file it writes and removes.
std::vector<CheckResult> CheckServer(const Config& config, Launcher& launcher);

// One line each, and the cure below where there is one.
std::string FormatCheck(const std::vector<CheckResult>& results);
// True when no result is an error.
bool Passed(const std::vector<CheckResult>& results);

}  // namespace finetuned
