// The job specification: mapping from text, checks, defaults and hash. Start here; key_table.h
// lists the keys, spec_value.h is the value tree. All functions are pure and thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "finetuned/v1/job_spec.pb.h"
#include "finetuned/v1/service.pb.h"
#include "proto/spec/key_table.h"
#include "proto/spec/spec_value.h"

namespace finetuned {

// Everything that can be said about a spec without a model, a file or a device: types' ranges,
// allowed values, values that are not built yet, required keys, keys that contradict each other
// (errors), and settings that are likely unwise (warnings). All problems at once, in the order of
// the keys. Works on submitted and on resolved specs alike.
std::vector<v1::Problem> ValidateSpec(const v1::JobSpec& spec);
bool HasErrors(const std::vector<v1::Problem>& problems);

// Every unset key that has a default is set to it, value aliases are replaced ("adamw_torch" →
// "adamw"), and dataset.split.method becomes "file" where only validation_path is given. Keys whose
// default is null stay unset. Idempotent. Never fails: values it cannot interpret are left for
// ValidateSpec to name.
v1::JobSpec ResolveDefaults(const v1::JobSpec& spec);

// Sets one key from text, as `--set key=value` does: a path, an alias, or a last name that is
// unique ("r"). `value` is a YAML scalar, [a, b] or {k: v}; null unsets. A map entry may be named:
// "lora.rank_pattern.q_proj" = "8". INVALID_ARGUMENT names the key, what is wrong, what is allowed
// and the nearest key. Keys without effect (WithoutEffect) are OK and change nothing. Ranges are
// left to ValidateSpec. On error the spec is unchanged.
absl::Status SetKey(v1::JobSpec* spec, std::string_view dotted_key, std::string_view value);

// SHA-256 (hex) of the deterministic serialization. Equal specs give equal hashes; hash the
// resolved spec to treat a default written out as equal to one left out.
std::string SpecFingerprint(const v1::JobSpec& spec);

// A problem found while mapping, with the line it is on (0: no file).
struct MappingProblem {
  v1::Problem problem;
  int line = 0;
};
// Merges a whole tree into `spec`: blocks, aliases, lists or single values, null. All problems at
// once: unknown keys with the nearest one, wrong types, keys given twice (also once by an alias),
// refused keys; warnings for keys without effect.
std::vector<MappingProblem> ApplyTree(const SpecValue& tree, v1::JobSpec* spec);

// The tree of all keys that are set, in the order of the table; ApplyTree of it gives an equal
// spec.
SpecValue SpecToTree(const v1::JobSpec& spec);

// "8h", "30m", "45s", "1h30m" → seconds; negative if it is none of these.
double ParseDurationSeconds(std::string_view text);

// The reference page (Markdown) of all keys; deploy/job-reference.md is its output.
std::string JobReferencePage();

}  // namespace finetuned
