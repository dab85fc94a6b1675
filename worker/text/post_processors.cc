#include "worker/text/post_processors.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/text/json_fields.h"

namespace finetuned {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxTokens = 4096;  // a hostile file must not multiply pieces without end
constexpr std::string_view kSupported =
    "BertProcessing, ByteLevel, RobertaProcessing, Sequence, TemplateProcessing";

// What the processors so far make of the text: parts, each a list of ids in which kText stands for
// those of the text. Like Hugging Face, a template leaves its pieces as parts, and what follows
// takes a second part for the second text of a pair.
constexpr int32_t kText = -1;
using Part = std::vector<int32_t>;

bool IsId(const nlohmann::json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= INT32_MAX;
}

// A ["token", id] pair.
absl::StatusOr<int32_t> ReadTokenPair(const JsonFields& fields, std::string_view key) {
  FT_ASSIGN_OR_RETURN(const nlohmann::json* pair, fields.Array(key));
  if (pair->size() != 2 || !(*pair)[0].is_string() || !IsId((*pair)[1]))
    return fields.Error(key, "must be [token, id]");
  return (*pair)[1].get<int32_t>();
}

// The ids that a special token of a template stands for.
absl::StatusOr<Part> TemplateToken(const JsonFields& fields, const JsonFields& piece) {
  FT_ASSIGN_OR_RETURN(const nlohmann::json* value, piece.Object("SpecialToken"));
  FT_ASSIGN_OR_RETURN(const JsonFields reference,
                      JsonFields::Of(*value, piece.path() + ".SpecialToken"));
  FT_ASSIGN_OR_RETURN(const std::string name, reference.String("id"));
  FT_ASSIGN_OR_RETURN(const nlohmann::json* tokens, fields.Object("special_tokens"));
  const auto it = tokens->find(name);
  if (it == tokens->end()) {
    return reference.Error("id",
                           absl::StrCat("is '", name, "', which special_tokens does not define"));
  }
  FT_ASSIGN_OR_RETURN(const JsonFields token,
                      JsonFields::Of(*it, absl::StrCat(fields.path(), ".special_tokens.", name)));
  FT_ASSIGN_OR_RETURN(const nlohmann::json* ids, token.Array("ids"));
  if (!std::all_of(ids->begin(), ids->end(), IsId)) return token.Error("ids", "must be token ids");
  return ids->get<Part>();
}

absl::Status ApplyTemplate(const JsonFields& fields, std::vector<Part>& parts) {
  if (parts.size() > 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        fields.path(), ": a template follows one that makes ", parts.size(), " pieces"));
  }
  const char* key = parts.size() == 1 ? "single" : "pair";
  FT_ASSIGN_OR_RETURN(const nlohmann::json* pieces, fields.Array(key));
  std::vector<Part> out;
  for (size_t i = 0; i < pieces->size(); ++i) {
    FT_ASSIGN_OR_RETURN(
        const JsonFields piece,
        JsonFields::Of((*pieces)[i], absl::StrCat(fields.path(), ".", key, "[", i, "]")));
    if (!piece.Has("Sequence")) {
      FT_ASSIGN_OR_RETURN(Part ids, TemplateToken(fields, piece));
      out.push_back(std::move(ids));
      continue;
    }
    FT_ASSIGN_OR_RETURN(const nlohmann::json* value, piece.Object("Sequence"));
    FT_ASSIGN_OR_RETURN(const JsonFields sequence,
                        JsonFields::Of(*value, piece.path() + ".Sequence"));
    FT_ASSIGN_OR_RETURN(const std::string id, sequence.String("id"));
    if (id != "A" && id != "B") return sequence.Error("id", "must be A or B");
    const size_t index = id == "A" ? 0 : 1;
    if (index >= parts.size()) return sequence.Error("id", "is B, but there is only one text");
    out.push_back(parts[index]);
  }
  parts = std::move(out);
  return absl::OkStatus();
}

absl::Status Process(const nlohmann::json& value, const std::string& path, int depth,
                     std::vector<Part>& parts) {
  FT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of(value, path));
  FT_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  size_t total = 0;
  for (const Part& part : parts) total += part.size();
  if (total > kMaxTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": more than ", kMaxTokens, " special tokens"));
  }
  if (type == "ByteLevel") return absl::OkStatus();  // trims offsets, which training does not want
  if (type == "TemplateProcessing") return ApplyTemplate(fields, parts);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    FT_ASSIGN_OR_RETURN(const int32_t cls, ReadTokenPair(fields, "cls"));
    FT_ASSIGN_OR_RETURN(const int32_t sep, ReadTokenPair(fields, "sep"));
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i == 0) {
        parts[i].insert(parts[i].begin(), cls);
      } else if (type == "RobertaProcessing") {
        parts[i].insert(parts[i].begin(), sep);
      }
      parts[i].push_back(sep);
    }
    return absl::OkStatus();
  }
  if (type == "Sequence") {
    if (depth >= kMaxDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": more than ", kMaxDepth, " sequences in each other"));
    }
    FT_ASSIGN_OR_RETURN(const nlohmann::json* steps, fields.Array("processors"));
    for (size_t i = 0; i < steps->size(); ++i) {
      FT_RETURN_IF_ERROR(
          Process((*steps)[i], absl::StrCat(path, ".processors[", i, "]"), depth + 1, parts));
    }
    return absl::OkStatus();
  }
  return UnknownComponent(fields, type, "post-processor", kSupported);
}

}  // namespace

absl::StatusOr<SpecialTokens> ReadPostProcessor(const nlohmann::json& value,
                                                const std::string& path) {
  if (value.is_null()) return SpecialTokens();
  std::vector<Part> parts = {{kText}};
  FT_RETURN_IF_ERROR(Process(value, path, 0, parts));
  Part all;
  for (const Part& part : parts) all.insert(all.end(), part.begin(), part.end());
  const auto text = std::find(all.begin(), all.end(), kText);
  if (std::count(all.begin(), all.end(), kText) != 1) {
    return absl::InvalidArgumentError(absl::StrCat(path, " puts the text in ",
                                                   std::count(all.begin(), all.end(), kText),
                                                   " times; it must stand there once"));
  }
  return SpecialTokens{Part(all.begin(), text), Part(text + 1, all.end())};
}

}  // namespace finetuned
