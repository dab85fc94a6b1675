#include <algorithm>
#include <regex>
#include <set>
#include <stdexcept>

#include "worker/adapters/lora.h"

namespace finetuned {
namespace {

std::string LastPart(const std::string& name) { return name.substr(name.rfind('.') + 1); }

// Whether `name` has a component that begins with `word` before its last one: "attention" finds
// self_attn and attention.
bool InGroup(const std::string& name, const std::string& word) {
  return name.find("." + word) != std::string::npos;
}

bool Matches(const std::string& entry, const std::string& name) {
  if (entry == "auto" || entry == "all-linear") return true;
  if (entry == "attention")
    return InGroup(name, "self_attn.") || InGroup(name, "attn.") || InGroup(name, "attention.");
  if (entry == "mlp") return InGroup(name, "mlp.");
  if (name == entry || name.ends_with("." + entry)) return true;
  if (entry.find_first_of("*+?[](){}|^$\\") == std::string::npos) return false;
  try {
    return std::regex_match(name, std::regex(entry, std::regex::ECMAScript | std::regex::optimize));
  } catch (const std::regex_error& error) {
    throw std::invalid_argument("lora.target_modules: '" + entry +
                                "' is no valid regular expression: " + error.what());
  }
}

}  // namespace

std::vector<std::string> SelectTargetModules(const std::vector<std::string>& linear_names,
                                             const v1::Lora& spec) {
  std::vector<std::string> entries(spec.target_modules().begin(), spec.target_modules().end());
  if (entries.empty()) entries.push_back("auto");
  std::set<std::string> selected;
  for (const std::string& entry : entries) {
    bool found = false;
    for (const std::string& name : linear_names) {
      if (!Matches(entry, name)) continue;
      found = true;
      selected.insert(name);
    }
    if (found) continue;
    std::set<std::string> kinds;
    for (const std::string& name : linear_names) kinds.insert(LastPart(name));
    std::string known;
    for (const std::string& kind : kinds) known += (known.empty() ? "" : ", ") + kind;
    throw std::invalid_argument(
        "lora.target_modules: '" + entry + "' matches no linear layer of this model; there are " +
        known + "; or use all-linear, attention, mlp, a full name or a regular expression");
  }
  for (const std::string& entry : spec.exclude_modules()) {
    for (const std::string& name : linear_names) {
      if (Matches(entry, name)) selected.erase(name);
    }
  }
  if (selected.empty()) {
    throw std::invalid_argument(
        "lora.exclude_modules: nothing is left to adapt; exclude fewer modules");
  }
  std::vector<std::string> ordered;
  for (const std::string& name : linear_names) {
    if (selected.count(name) != 0) ordered.push_back(name);
  }
  return ordered;
}

}  // namespace finetuned
