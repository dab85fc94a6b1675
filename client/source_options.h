// What export, merge and generate work on: a job, one of its checkpoints, or an adapter directory
// and its base.
#pragma once

#include <string>

#include "client/cli.h"

namespace finetuned {

struct SourceOptions {
  std::string job;
  int64_t checkpoint = -1;
  std::string adapter;
  std::string model;
  bool watch = false;
};
void AddSourceOptions(CLI::App& app, SourceOptions* options);
// Fills kind and source.
void FillSource(const SourceOptions& options, const char* kind, v1::JobSpec* spec);

}  // namespace finetuned
