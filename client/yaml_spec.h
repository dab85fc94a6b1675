// Job files: YAML text ↔ value tree ↔ JobSpec. Which keys there are and what they accept is
// proto/spec's matter.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/spec/spec.h"

namespace finetuned {

// One YAML document as a value tree with line numbers. INVALID_ARGUMENT "line N: …" for broken YAML
// and for what a job file has no use for and an attacker has: anchors and aliases, own tags,
// several documents, more than 32 levels, more than 100 000 values, more than 4 MiB. Scalars keep
// their text; no type is guessed.
absl::StatusOr<SpecValue> ParseYaml(std::string_view text);

// Block style, two spaces a level; lists and empty maps in flow style. ParseYaml gives the same
// tree.
std::string EmitYaml(const SpecValue& tree);

struct JobFile {
  v1::JobSpec spec;
  std::vector<MappingProblem> problems;
  // Canonical key → line, to point at the file when the server finds a problem.
  std::map<std::string, int> lines;
};
// Problems of the mapping are in the result; only text that is no YAML is an error.
absl::StatusOr<JobFile> ParseJobFile(std::string_view text);

// Every key that is set, as a job file.
std::string SpecToYaml(const v1::JobSpec& spec);

}  // namespace finetuned
