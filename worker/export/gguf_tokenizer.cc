#include "worker/export/gguf_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "worker/export/gguf_vocabulary.h"
#include "worker/text/tokenizer.h"

namespace finetuned {
namespace {

using nlohmann::json;

// Empty object when the file is not there.
absl::StatusOr<json> ReadOptionalObject(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return json::object();
  FT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object())
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a JSON object"));
  return parsed;
}

// The files beside tokenizer.json that say which tokens are special.
struct SpecialTokenFiles {
  json tokenizer_config, special_tokens_map, config, generation_config;
};

// Id of the special token `role` ("bos", "eos", …): by text in tokenizer_config.json or
// special_tokens_map.json, else by number in config.json or generation_config.json (of several ends
// the first).
std::optional<int32_t> SpecialId(const SpecialTokenFiles& files, const Tokenizer& tokenizer,
                                 const std::string& role) {
  for (const json* file : {&files.tokenizer_config, &files.special_tokens_map}) {
    const auto found = file->find(role + "_token");
    if (found == file->end()) continue;
    const json& text =
        found->is_object() && found->contains("content") ? (*found)["content"] : *found;
    if (!text.is_string()) continue;
    if (const auto id = tokenizer.TokenToId(text.get_ref<const std::string&>())) return id;
  }
  for (const json* file : {&files.config, &files.generation_config}) {
    const auto found = file->find(role + "_token_id");
    if (found == file->end()) continue;
    const json& id = found->is_array() && !found->empty() ? (*found)[0] : *found;
    if (id.is_number_integer() && id >= 0 && id < tokenizer.vocab_size()) return id.get<int32_t>();
  }
  return std::nullopt;
}

// Every id that ends an answer.
std::vector<int32_t> EndIds(const SpecialTokenFiles& files, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (const json* file : {&files.generation_config, &files.config}) {
    const auto found = file->find("eos_token_id");
    if (found == file->end()) continue;
    for (const json& id : found->is_array() ? *found : json::array({*found})) {
      if (!id.is_number_integer() || id < 0 || id >= tokenizer.vocab_size()) continue;
      const auto value = id.get<int32_t>();
      if (std::find(ids.begin(), ids.end(), value) == ids.end()) ids.push_back(value);
    }
  }
  return ids;
}

// llama.cpp ends an answer at tokens with these texts by itself (llama-vocab.cpp, special_eog_ids).
bool EndsByItsText(const std::string& token) {
  static const char* const kTexts[] = {
      "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",   "<|endoftext|>",
      "</s>",       "<|eom_id|>", "<EOT>",   "<|end_of_text|>", "<eos>"};
  return std::find(std::begin(kTexts), std::end(kTexts), token) != std::end(kTexts);
}

// Ids of bos, eos, unk, pad … and whether BOS and EOS are put around a text.
absl::Status AddSpecialTokens(const SpecialTokenFiles& files, const Tokenizer& tokenizer,
                              GgufTokenizer& out) {
  const auto set_id = [&out](const std::string& key, int32_t id) {
    out.keys.emplace_back(absl::StrCat("tokenizer.ggml.", key), static_cast<uint32_t>(id));
  };
  std::optional<int32_t> bos = SpecialId(files, tokenizer, "bos"),
                         eos = SpecialId(files, tokenizer, "eos");

  // What the post-processor puts around a text, seen on a text.
  const std::vector<int32_t> plain = tokenizer.Encode("a", false),
                             around = tokenizer.Encode("a", true);
  const auto begin = std::search(around.begin(), around.end(), plain.begin(), plain.end());
  const std::vector<int32_t> before(around.begin(), begin),
      after(begin + static_cast<int64_t>(plain.size()), around.end());
  const auto check = [&](const std::vector<int32_t>& ids, std::optional<int32_t>& id,
                         const char* name) {
    if (ids.empty()) return absl::OkStatus();
    if (!id.has_value()) id = ids[0];
    if (ids.size() == 1 && ids[0] == *id) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat(
        "tokenizer.json: the post_processor puts ", ids.size(), " tokens, the first of them '",
        tokenizer.IdToToken(ids[0]).value_or(""), "', where llama.cpp can put ", name,
        " alone, which is '", tokenizer.IdToToken(*id).value_or(""), "'"));
  };
  FT_RETURN_IF_ERROR(check(before, bos, "BOS"));
  FT_RETURN_IF_ERROR(check(after, eos, "EOS"));

  if (bos.has_value()) set_id("bos_token_id", *bos);
  if (eos.has_value()) set_id("eos_token_id", *eos);
  for (const auto& [role, key] :
       {std::pair{"unk", "unknown"}, {"sep", "seperator"}, {"pad", "padding"}, {"mask", "mask"}}) {
    if (const auto id = SpecialId(files, tokenizer, role))
      set_id(absl::StrCat(key, "_token_id"), *id);
  }
  // Further ends that llama.cpp does not find by itself go where it looks for more: end of turn,
  // end of message.
  size_t more = 0;
  constexpr const char* kMoreEnds[] = {"eot_token_id", "eom_token_id"};
  for (const int32_t id : EndIds(files, tokenizer)) {
    const std::string text = tokenizer.IdToToken(id).value_or("");
    if (id == eos || EndsByItsText(text)) continue;
    if (more < std::size(kMoreEnds)) {
      set_id(kMoreEnds[more++], id);
    } else {
      out.notes.push_back(absl::StrCat("GGUF has no place for a further end token '", text,
                                       "'; llama.cpp will not stop there"));
    }
  }
  out.keys.emplace_back("tokenizer.ggml.add_bos_token", !before.empty());
  out.keys.emplace_back("tokenizer.ggml.add_eos_token", !after.empty());
  return absl::OkStatus();
}

// tokenizer.chat_template, and tokenizer.chat_template.NAME for further ones. A chat_template.jinja
// counts before the field of tokenizer_config.json, as in transformers.
absl::Status AddChatTemplates(const std::string& model_dir, const json& tokenizer_config,
                              GgufTokenizer& out) {
  std::error_code error;
  const std::string path = model_dir + "/chat_template.jinja";
  if (std::filesystem::exists(path, error)) {
    FT_ASSIGN_OR_RETURN(std::string source, ReadFile(path));
    out.keys.emplace_back("tokenizer.chat_template", std::move(source));
    return absl::OkStatus();
  }
  const auto found = tokenizer_config.find("chat_template");
  if (found == tokenizer_config.end() || found->is_null()) return absl::OkStatus();
  if (found->is_string()) {
    out.keys.emplace_back("tokenizer.chat_template", found->get<std::string>());
    return absl::OkStatus();
  }
  std::vector<std::string> names;
  for (const json& entry : found->is_array() ? *found : json::array({json()})) {
    if (!entry.is_object() || !entry.contains("name") || !entry["name"].is_string() ||
        !entry.contains("template") || !entry["template"].is_string()) {
      return absl::InvalidArgumentError(
          "tokenizer_config.json: chat_template must be a text or a list of objects with name and "
          "template");
    }
    const std::string name = entry["name"];
    if (name != "default") names.push_back(name);
    out.keys.emplace_back(name == "default" ? "tokenizer.chat_template"
                                            : absl::StrCat("tokenizer.chat_template.", name),
                          entry["template"].get<std::string>());
  }
  if (!names.empty())
    out.keys.emplace_back("tokenizer.chat_templates", GgufArray(std::move(names)));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GgufTokenizer> ReadGgufTokenizer(const std::string& model_dir, int64_t rows) {
  const std::string path = model_dir + "/tokenizer.json";
  FT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  FT_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::FromJson(text, path));
  FT_ASSIGN_OR_RETURN(GgufVocabulary vocabulary,
                      ReadGgufVocabulary(json::parse(text), *tokenizer, rows));
  SpecialTokenFiles files;
  FT_ASSIGN_OR_RETURN(files.tokenizer_config,
                      ReadOptionalObject(model_dir + "/tokenizer_config.json"));
  FT_ASSIGN_OR_RETURN(files.special_tokens_map,
                      ReadOptionalObject(model_dir + "/special_tokens_map.json"));
  FT_ASSIGN_OR_RETURN(files.config, ReadOptionalObject(model_dir + "/config.json"));
  FT_ASSIGN_OR_RETURN(files.generation_config,
                      ReadOptionalObject(model_dir + "/generation_config.json"));

  GgufTokenizer out;
  out.notes = std::move(vocabulary.notes);
  out.keys.emplace_back("tokenizer.ggml.model", vocabulary.model);
  out.keys.emplace_back("tokenizer.ggml.pre", vocabulary.pre);
  out.keys.emplace_back("tokenizer.ggml.tokens", GgufArray(std::move(vocabulary.tokens)));
  out.keys.emplace_back("tokenizer.ggml.token_type", GgufArray(std::move(vocabulary.types)));
  if (vocabulary.model == "llama") {
    out.keys.emplace_back("tokenizer.ggml.scores", GgufArray(std::move(vocabulary.scores)));
    out.keys.emplace_back("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix);
  } else {
    out.keys.emplace_back("tokenizer.ggml.merges", GgufArray(std::move(vocabulary.merges)));
  }
  FT_RETURN_IF_ERROR(AddSpecialTokens(files, *tokenizer, out));
  FT_RETURN_IF_ERROR(AddChatTemplates(model_dir, files.tokenizer_config, out));
  return out;
}

}  // namespace finetuned
