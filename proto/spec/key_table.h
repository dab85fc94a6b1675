// The table of job keys, read by reflection from job_spec.proto and its (finetuned.v1.key) options.
// Nothing else in the project lists keys.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "finetuned/v1/options.pb.h"

namespace google::protobuf {
class FieldDescriptor;
}

namespace finetuned {

enum class KeyType {
  kText,
  kWhole,
  kNumber,
  kBool,
  kWholeOrAuto,
  kNumberOrAuto,
  kBoolOrAuto,
  kTextList,
  kTextMap,    // name → text
  kWholeMap,   // name → whole number
  kNumberMap,  // name → number
  kSources,    // list of dataset sources
};

struct KeyInfo {
  // "lora.r"; keys of a source in a list are "dataset.sources[].path".
  std::string path;
  KeyType type;
  // Default, range, allowed values, aliases, help, unit, what is not built.
  v1::Key key;
  // Field of each level from JobSpec down to the key; for keys of a list's element only the
  // element's field.
  std::vector<const google::protobuf::FieldDescriptor*> chain;
  bool in_list = false;
};

// Every key in the order of the file. Built once, on first use; thread-safe.
const std::vector<KeyInfo>& AllKeys();

// By exact path or alias; null if there is none. Also finds an alias written inside its own block
// ("lora.lora_alpha").
const KeyInfo* FindKey(std::string_view path);

// For short spellings on a command line: the one key whose last name is `name` ("r" → lora.r); null
// if there is none or more than one.
const KeyInfo* FindKeyByLastName(std::string_view name);

// True for "dataset", "lora", "evaluation.generation": a name that holds keys.
bool IsBlock(std::string_view path);

// The path closest by edit distance, aliases and last names included; empty when nothing is close.
std::string NearestKey(std::string_view path);
// The closest of `candidates`; empty when nothing is close.
std::string NearestText(std::string_view text, const std::vector<std::string>& candidates);

// "a whole number" / "one of lora, dora" / … with range, unit and default: what a person may write.
std::string AllowedText(const KeyInfo& info);
// Name of the type for the reference page: "whole number or auto".
std::string TypeName(KeyType type);

// Keys of TrainingArguments and friends that have no meaning here: a warning text, or nothing for
// other keys.
std::optional<std::string> WithoutEffect(std::string_view path);
// Keys refused by name (load_in_8bit, prefix_tuning, …): the nearest choice, or nothing. `value`
// may make it harmless
// ("load_in_8bit: false").
std::optional<std::string> RefusedKey(std::string_view path, std::string_view value);

}  // namespace finetuned
