#include "worker/text/post_processors.h"

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/text/json_fields.h"

namespace finetuned {
namespace {

constexpr int kMaxDepth = 32;
constexpr std::string_view kSupported =
    "ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing, Sequence";

// A ["token", id] pair.
absl::StatusOr<int32_t> ReadTokenPair(const JsonFields& fields, std::string_view key) {
  FT_ASSIGN_OR_RETURN(const nlohmann::json* pair, fields.Array(key));
  if (pair->size() != 2 || !(*pair)[0].is_string() || !(*pair)[1].is_number_unsigned() ||
      (*pair)[1].get<uint64_t>() > INT32_MAX) {
    return fields.Error(key, "must be [token, id]");
  }
  return (*pair)[1].get<int32_t>();
}

// The ids that a special token of a template stands for.
absl::Status AppendTemplateToken(const JsonFields& fields, const std::string& name,
                                 std::vector<int32_t>& out) {
  FT_ASSIGN_OR_RETURN(const nlohmann::json* tokens, fields.Object("special_tokens"));
  const auto it = tokens->find(name);
  if (it == tokens->end()) {
    return fields.Error("single",
                        absl::StrCat("uses '", name, "', which special_tokens does not define"));
  }
  FT_ASSIGN_OR_RETURN(const JsonFields token,
                      JsonFields::Of(*it, absl::StrCat(fields.path(), ".special_tokens.", name)));
  FT_ASSIGN_OR_RETURN(const nlohmann::json* ids, token.Array("ids"));
  for (const nlohmann::json& id : *ids) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX)
      return token.Error("ids", "must be token ids");
    out.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

absl::StatusOr<SpecialTokens> ReadTemplate(const JsonFields& fields) {
  FT_ASSIGN_OR_RETURN(const nlohmann::json* pieces, fields.Array("single"));
  SpecialTokens result;
  bool text_seen = false;
  for (size_t i = 0; i < pieces->size(); ++i) {
    FT_ASSIGN_OR_RETURN(
        const JsonFields piece,
        JsonFields::Of((*pieces)[i], absl::StrCat(fields.path(), ".single[", i, "]")));
    if (piece.Has("Sequence")) {
      if (text_seen)
        return piece.Error("Sequence", "stands a second time; a template holds the text once");
      text_seen = true;
    } else {
      FT_ASSIGN_OR_RETURN(const nlohmann::json* value, piece.Object("SpecialToken"));
      FT_ASSIGN_OR_RETURN(const JsonFields token,
                          JsonFields::Of(*value, piece.path() + ".SpecialToken"));
      FT_ASSIGN_OR_RETURN(const std::string name, token.String("id"));
      FT_RETURN_IF_ERROR(
          AppendTemplateToken(fields, name, text_seen ? result.after : result.before));
    }
  }
  if (!text_seen) return fields.Error("single", "has no Sequence; a template holds the text once");
  return result;
}

absl::StatusOr<SpecialTokens> Read(const nlohmann::json& value, const std::string& path,
                                   int depth) {
  FT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, path));
  FT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  SpecialTokens result;
  if (type == "ByteLevel") return result;  // trims offsets, which training does not want
  if (type == "TemplateProcessing") return ReadTemplate(fields);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    FT_ASSIGN_OR_RETURN(const int32_t cls, ReadTokenPair(fields, "cls"));
    FT_ASSIGN_OR_RETURN(const int32_t sep, ReadTokenPair(fields, "sep"));
    result.before = {cls};
    result.after = {sep};
    return result;
  }
  if (type == "Sequence") {
    if (depth >= kMaxDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": more than ", kMaxDepth, " sequences in each other"));
    }
    FT_ASSIGN_OR_RETURN(const nlohmann::json* parts, fields.Array("processors"));
    for (size_t i = 0; i < parts->size(); ++i) {
      FT_ASSIGN_OR_RETURN(const SpecialTokens step,
                          Read((*parts)[i], absl::StrCat(path, ".processors[", i, "]"), depth + 1));
      result.before.insert(result.before.begin(), step.before.begin(), step.before.end());
      result.after.insert(result.after.end(), step.after.begin(), step.after.end());
    }
    return result;
  }
  return UnknownComponent(fields, type, "post-processor", kSupported);
}

}  // namespace

absl::StatusOr<SpecialTokens> ReadPostProcessor(const nlohmann::json& value,
                                                const std::string& path) {
  if (value.is_null()) return SpecialTokens();
  return Read(value, path, 0);
}

}  // namespace finetuned
