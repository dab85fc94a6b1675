#include "worker/planning/planned_adapters.h"

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "worker/adapters/lora.h"

namespace finetuned {

std::vector<PlannedAdapter> PlanAdapters(const v1::Lora& lora, const ModelSummary& model) {
  std::vector<std::string> names;
  for (const LinearInfo& linear : model.linears) names.push_back(linear.name);
  const std::vector<std::string> selected = SelectTargetModules(names, lora);
  const std::set<std::string> targets(selected.begin(), selected.end());

  // PEFT's rule: a key matches a whole name or its end after a dot; the first in key order wins.
  std::vector<std::pair<std::regex, int64_t>> patterns;
  const std::map<std::string, int64_t> ranks(lora.rank_pattern().begin(),
                                             lora.rank_pattern().end());
  for (const auto& [key, rank] : ranks) {
    try {
      patterns.emplace_back(std::regex("(.*\\.)?(" + key + ")"), rank);
    } catch (const std::regex_error& error) {
      throw std::invalid_argument("lora.rank_pattern: '" + key +
                                  "' is no valid regular expression: " + error.what());
    }
  }

  std::vector<PlannedAdapter> adapters;
  for (const LinearInfo& linear : model.linears) {
    if (targets.count(linear.name) == 0) continue;
    int64_t rank = lora.r().value();
    for (const auto& [pattern, pattern_rank] : patterns) {
      if (!std::regex_match(linear.name, pattern)) continue;
      rank = pattern_rank;
      break;
    }
    adapters.push_back({&linear, rank, std::min({rank, linear.in_features, linear.out_features})});
  }
  return adapters;
}

}  // namespace finetuned
