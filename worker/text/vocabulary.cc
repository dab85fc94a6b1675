#include "worker/text/vocabulary.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/text/token_model.h"

namespace finetuned {

absl::Status Vocabulary::Read(const JsonFields& model) {
  FT_ASSIGN_OR_RETURN(const nlohmann::json* vocab, model.Object("vocab"));
  FT_ASSIGN_OR_RETURN(const JsonFields entries, JsonFields::Of(*vocab, model.path() + ".vocab"));
  int64_t highest = -1;
  for (const auto& [token, id] : vocab->items()) {
    FT_ASSIGN_OR_RETURN(const int64_t value, entries.Integer(token, 0, TokenModel::kMaxTokenId));
    highest = std::max(highest, value);
  }
  tokens_.resize(static_cast<size_t>(highest + 1));
  present_.resize(tokens_.size(), false);
  ids_.reserve(vocab->size());
  for (const auto& [token, id] : vocab->items()) {
    const auto value = id.get<int32_t>();
    if (present_[value]) {
      return absl::InvalidArgumentError(absl::StrCat(model.path(), ".vocab gives id ", value,
                                                     " to both '", tokens_[value], "' and '", token,
                                                     "'; ids must be unique"));
    }
    present_[value] = true;
    tokens_[value] = token;
    ids_.emplace(tokens_[value], value);
  }
  return absl::OkStatus();
}

void Vocabulary::Set(std::vector<std::string> tokens) {
  tokens_ = std::move(tokens);
  present_.resize(tokens_.size(), false);
  for (size_t id = 0; id < tokens_.size(); ++id) {
    if (tokens_[id].empty()) continue;
    present_[id] = true;
    ids_.emplace(tokens_[id], static_cast<int32_t>(id));
  }
}

}  // namespace finetuned
