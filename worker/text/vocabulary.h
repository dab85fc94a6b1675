// Tokens and their ids, as the `vocab` object of a tokenizer.json lists them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "worker/text/json_fields.h"

namespace finetuned {

class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;

  // Reads {"token": id, …} from the model's field `vocab`. INVALID_ARGUMENT: no object, an id that
  // is no integer from 0 to TokenModel::kMaxTokenId, or one used twice. Call once.
  absl::Status Read(const JsonFields& model);
  // Tokens by id; an empty one leaves its id out. REQUIRES: no token twice. Call once.
  void Set(std::vector<std::string> tokens);

  std::optional<int32_t> IdOf(std::string_view token) const {
    const auto it = ids_.find(token);
    return it == ids_.end() ? std::nullopt : std::optional(it->second);
  }
  // Null when the id is not in use.
  const std::string* TokenOf(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < tokens_.size() && present_[id] ? &tokens_[id]
                                                                               : nullptr;
  }
  int32_t size() const { return static_cast<int32_t>(ids_.size()); }
  int32_t id_limit() const { return static_cast<int32_t>(tokens_.size()); }  // highest id + 1

 private:
  std::vector<std::string> tokens_;                     // by id
  std::vector<bool> present_;                           // by id: whether the id is in use
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // views of tokens_
};

}  // namespace finetuned
