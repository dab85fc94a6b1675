#include "worker/text/tiktoken.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "worker/text/bpe.h"
#include "worker/text/json_fields.h"
#include "worker/text/split_patterns.h"

namespace finetuned {
namespace {

constexpr std::string_view kO200kPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string_view PatternOf(size_t tokens) {
  switch (tokens) {
    case 50256:  // r50k and GPT-2
    case 50257:  // Whisper
    case 50280:  // p50k
      return kGpt2Pattern;
    case 151643:  // Qwen to Qwen 3
      return kQwen2Pattern;
    case 248044:  // Qwen 3.5
      return kQwen35Pattern;
    case 199998:  // o200k
    case 200000:  // Llama 4
      return kO200kPattern;
    default:
      return kLlama3Pattern;
  }
}

// The parts around the model: cuts by `pattern`, byte-level text.
absl::StatusOr<TokenizerParts> Assemble(std::vector<std::string> tokens, std::string_view pattern) {
  TokenizerParts parts;
  FT_ASSIGN_OR_RETURN(parts.model, BpeModel::FromRanks(std::move(tokens)));
  const nlohmann::json cuts = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", std::string(pattern)}}},
         {"behavior", "Isolated"},
         {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  FT_ASSIGN_OR_RETURN(parts.pre_tokenization,
                      MakePreTokenizer(cuts, "pattern", /*prefer_raw_bytes=*/true));
  parts.pre_tokenization.family.clear();  // it also says how special tokens are, which is unknown
  FT_ASSIGN_OR_RETURN(parts.decoder, MakeDecoder({{"type", "ByteLevel"}}, "decoder"));
  return parts;
}

bool ReadLine(std::string_view line, std::string& token, int64_t& rank) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0) return false;
  const std::string encoded(line.substr(0, space));
  // "=" is how Whisper's file writes the empty token, which no text can hold.
  token.clear();
  if (encoded != "=" && !absl::Base64Unescape(encoded, &token)) return false;
  const char *begin = line.data() + space + 1, *end = line.data() + line.size();
  const auto [stop, error] = std::from_chars(begin, end, rank);
  return error == std::errc() && stop == end && rank >= 0 && rank <= TokenModel::kMaxTokenId;
}

absl::Status Place(std::string token, size_t id, std::vector<std::string>& tokens) {
  if (id >= tokens.size()) tokens.resize(id + 1);
  if (!tokens[id].empty())
    return absl::InvalidArgumentError(absl::StrCat("gives id ", id, " to two tokens"));
  tokens[id] = std::move(token);
  return absl::OkStatus();
}

}  // namespace

bool LooksLikeTiktoken(std::string_view bytes) {
  std::string token;
  int64_t rank = 0;
  std::string_view line = bytes.substr(0, bytes.find('\n'));
  if (line.ends_with('\r')) line.remove_suffix(1);
  return ReadLine(line, token, rank);
}

bool LooksLikeTekken(std::string_view bytes) {
  const std::string_view front = bytes.substr(0, 1 << 16);
  return front.find("\"token_bytes\"") != std::string_view::npos &&
         front.find("\"default_vocab_size\"") != std::string_view::npos;
}

absl::StatusOr<TokenizerParts> ReadTiktoken(std::string_view bytes) {
  std::vector<std::string> tokens;
  size_t number = 0, count = 0;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    std::string_view line = bytes.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    std::string token;
    int64_t rank = 0;
    if (!ReadLine(line, token, rank)) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, " is no base64 token and rank"));
    }
    ++count;
    if (token.empty()) continue;
    FT_RETURN_IF_ERROR(Place(std::move(token), static_cast<size_t>(rank), tokens));
  }
  return Assemble(std::move(tokens), PatternOf(count));
}

absl::StatusOr<TokenizerParts> ReadTekken(std::string_view bytes) {
  const nlohmann::json file = nlohmann::json::parse(bytes, nullptr, /*allow_exceptions=*/false);
  if (file.is_discarded()) return absl::InvalidArgumentError("is not well-formed JSON");
  FT_ASSIGN_OR_RETURN(const JsonFields root, JsonFields::Of(file, "the file"));
  FT_ASSIGN_OR_RETURN(const nlohmann::json* value, root.Object("config"));
  FT_ASSIGN_OR_RETURN(const JsonFields config, JsonFields::Of(*value, "config"));
  FT_ASSIGN_OR_RETURN(const std::string pattern, config.String("pattern"));
  FT_ASSIGN_OR_RETURN(const int64_t special,
                      config.Integer("default_num_special_tokens", 0, TokenModel::kMaxTokenId));
  FT_ASSIGN_OR_RETURN(const int64_t size,
                      config.Integer("default_vocab_size", special, TokenModel::kMaxTokenId));
  FT_ASSIGN_OR_RETURN(const nlohmann::json* vocab, root.Array("vocab"));
  if (static_cast<int64_t>(vocab->size()) < size - special) {
    return config.Error("default_vocab_size",
                        absl::StrCat("is ", size, ", but there are ", vocab->size(), " tokens and ",
                                     special, " special ones"));
  }
  // Ids of special tokens come first; what is beyond the size is left out.
  std::vector<std::string> tokens;
  for (size_t i = 0; i < vocab->size(); ++i) {
    FT_ASSIGN_OR_RETURN(const JsonFields entry,
                        JsonFields::Of((*vocab)[i], absl::StrCat("vocab[", i, "]")));
    FT_ASSIGN_OR_RETURN(const int64_t rank, entry.Integer("rank", 0, TokenModel::kMaxTokenId));
    if (rank >= size - special) continue;
    FT_ASSIGN_OR_RETURN(const std::string encoded, entry.String("token_bytes"));
    std::string token;
    if (!absl::Base64Unescape(encoded, &token) || token.empty())
      return entry.Error("token_bytes", "is not base64");
    FT_RETURN_IF_ERROR(Place(std::move(token), static_cast<size_t>(rank + special), tokens));
  }
  FT_ASSIGN_OR_RETURN(TokenizerParts parts, Assemble(std::move(tokens), pattern));

  std::vector<std::string> names;
  if (root.Has("special_tokens")) {
    FT_ASSIGN_OR_RETURN(const nlohmann::json* list, root.Array("special_tokens"));
    for (size_t i = 0; i < list->size(); ++i) {
      FT_ASSIGN_OR_RETURN(const JsonFields entry,
                          JsonFields::Of((*list)[i], absl::StrCat("special_tokens[", i, "]")));
      FT_ASSIGN_OR_RETURN(const int64_t rank, entry.Integer("rank", 0, special - 1));
      FT_ASSIGN_OR_RETURN(std::string name, entry.String("token_str"));
      if (static_cast<size_t>(rank) >= names.size()) names.resize(static_cast<size_t>(rank) + 1);
      names[static_cast<size_t>(rank)] = std::move(name);
    }
  } else {
    // Files before version 7 all have these.
    names = {"<unk>",
             "<s>",
             "</s>",
             "[INST]",
             "[/INST]",
             "[AVAILABLE_TOOLS]",
             "[/AVAILABLE_TOOLS]",
             "[TOOL_RESULTS]",
             "[/TOOL_RESULTS]",
             "[TOOL_CALLS]",
             "[IMG]",
             "<pad>",
             "[IMG_BREAK]",
             "[IMG_END]",
             "[PREFIX]",
             "[MIDDLE]",
             "[SUFFIX]",
             "[SYSTEM_PROMPT]",
             "[/SYSTEM_PROMPT]",
             "[TOOL_CONTENT]"};
  }
  names.resize(static_cast<size_t>(special));
  for (size_t id = 0; id < names.size(); ++id) {
    AddedToken token{};
    token.id = static_cast<int32_t>(id);
    token.content = names[id].empty() ? absl::StrCat("<SPECIAL_", id, ">") : std::move(names[id]);
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  return parts;
}

}  // namespace finetuned
