#include "worker/job/model_assets.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "worker/text/builtin_templates.h"

namespace finetuned {
namespace {

using nlohmann::json;

// Empty object when the file is not there.
absl::StatusOr<json> ReadOptionalJson(const std::string& path) {
  if (!std::filesystem::exists(path)) return json::object();
  FT_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, " is not a JSON object"));
  return parsed;
}

// A special token is written as its text or as {"content": text, …}.
std::string TokenText(const json& config, const char* key) {
  if (!config.contains(key)) return "";
  const json& value = config[key];
  if (value.is_string()) return value;
  if (value.is_object() && value.contains("content") && value["content"].is_string()) return value["content"];
  return "";
}

void AddIds(const json& value, std::vector<int64_t>* ids) {
  if (value.is_number_integer()) ids->push_back(value);
  if (value.is_array()) {
    for (const json& id : value) AddIds(id, ids);
  }
}

// The template text in the model's own files, with its origin; empty when there is none.
absl::StatusOr<std::pair<std::string, std::string>> OwnTemplate(const std::string& model_dir, const json& config) {
  const std::string file = model_dir + "/chat_template.jinja";
  if (std::filesystem::exists(file)) {
    FT_ASSIGN_OR_RETURN(std::string source, ReadFile(file));
    return std::make_pair(std::move(source), std::string("chat_template.jinja"));
  }
  if (config.contains("chat_template")) {
    const json& value = config["chat_template"];
    if (value.is_string()) return std::make_pair(value.get<std::string>(), std::string("tokenizer_config.json"));
    if (value.is_array()) {
      for (const json& entry : value) {
        if (entry.is_object() && entry.value("name", "") == "default" && entry.contains("template") && entry["template"].is_string()) {
          return std::make_pair(entry["template"].get<std::string>(), std::string("tokenizer_config.json (default)"));
        }
      }
    }
  }
  return std::make_pair(std::string(), std::string());
}

std::string BuiltinNames() {
  return absl::StrJoin(BuiltinTemplates(), ", ",
                       [](std::string* out, const BuiltinTemplate& t) { absl::StrAppend(out, t.name); });
}

// Built-in that this tokenizer's special tokens give away; null when nothing does.
const BuiltinTemplate* GuessBuiltin(const Tokenizer& tokenizer) {
  const std::pair<const char*, const char*> signs[] = {
      {"<|im_start|>", "chatml"}, {"<|start_header_id|>", "llama-3"}, {"<start_of_turn>", "gemma"}};
  for (const auto& [token, name] : signs) {
    const auto id = tokenizer.TokenToId(token);
    if (id.has_value() && tokenizer.IsSpecial(*id)) return FindBuiltinTemplate(name);
  }
  return nullptr;
}

absl::Status ChooseTemplate(const std::string& model_dir, const json& config, const std::string& wanted,
                            const std::string& wanted_path, bool needs_template, ModelAssets* assets) {
  std::string source;
  if (!wanted_path.empty()) {
    FT_ASSIGN_OR_RETURN(source, ReadFile(wanted_path));
    assets->template_origin = std::filesystem::path(wanted_path).filename().string();
  } else if (wanted != "auto") {
    const BuiltinTemplate* builtin = FindBuiltinTemplate(wanted);
    if (builtin == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("dataset.chat_template: '", wanted, "' is neither auto, a .jinja file nor a built-in; built-ins: ", BuiltinNames()));
    }
    source = builtin->source;
    assets->template_origin = absl::StrCat("built-in ", builtin->name);
  } else {
    FT_ASSIGN_OR_RETURN(std::tie(source, assets->template_origin), OwnTemplate(model_dir, config));
    if (source.empty()) {
      const BuiltinTemplate* guess = GuessBuiltin(*assets->tokenizer);
      if (guess == nullptr) {
        if (!needs_template) return absl::OkStatus();
        return absl::InvalidArgumentError(absl::StrCat(
            "dataset.chat_template: the model has no chat template and its special tokens do not tell which fits; a wrong template ruins a run "
            "silently, so choose one: ", BuiltinNames()));
      }
      source = guess->source;
      assets->template_origin = absl::StrCat("built-in ", guess->name);
      assets->notices.push_back(absl::StrCat("the model has no chat template; ", guess->name, " was chosen by its special tokens"));
    }
  }
  FT_ASSIGN_OR_RETURN(assets->chat_template, ChatTemplate::Parse(source, assets->template_origin));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelAssets> LoadModelAssets(const std::string& model_dir, const std::string& chat_template,
                                            const std::string& chat_template_path, bool needs_template) {
  ModelAssets assets;
  const std::string tokenizer_path = model_dir + "/tokenizer.json";
  FT_ASSIGN_OR_RETURN(assets.tokenizer, Tokenizer::FromFile(tokenizer_path));
  FT_ASSIGN_OR_RETURN(assets.tokenizer_sha256, Sha256File(tokenizer_path));
  FT_ASSIGN_OR_RETURN(const json config, ReadOptionalJson(model_dir + "/tokenizer_config.json"));
  FT_ASSIGN_OR_RETURN(const json map, ReadOptionalJson(model_dir + "/special_tokens_map.json"));
  FT_ASSIGN_OR_RETURN(const json generation, ReadOptionalJson(model_dir + "/generation_config.json"));
  FT_ASSIGN_OR_RETURN(const json model, ReadOptionalJson(model_dir + "/config.json"));
  auto token = [&](const char* key) {
    const std::string own = TokenText(config, key);
    return own.empty() ? TokenText(map, key) : own;
  };
  assets.bos_token = token("bos_token");
  assets.eos_token = token("eos_token");
  assets.pad_token = token("pad_token");
  assets.unk_token = token("unk_token");
  if (assets.pad_token.empty() && !assets.eos_token.empty()) {
    assets.pad_token = assets.eos_token;
    assets.notices.push_back(absl::StrCat("no pad token; ", assets.eos_token, " stands in (padding is never computed on)"));
  }

  const std::vector<int32_t> with = assets.tokenizer->Encode("a", /*add_special_tokens=*/true);
  const std::vector<int32_t> without = assets.tokenizer->Encode("a", /*add_special_tokens=*/false);
  const auto bos = assets.tokenizer->TokenToId(assets.bos_token);
  const auto eos = assets.tokenizer->TokenToId(assets.eos_token);
  if (with.size() > without.size()) {
    assets.tokenizer_adds_bos = bos.has_value() && with.front() == *bos;
    assets.tokenizer_adds_eos = eos.has_value() && with.back() == *eos;
  }
  FT_RETURN_IF_ERROR(ChooseTemplate(model_dir, config, chat_template, chat_template_path, needs_template, &assets));

  AddIds(generation.value("eos_token_id", json()), &assets.stop_token_ids);
  AddIds(model.value("eos_token_id", json()), &assets.stop_token_ids);
  if (eos.has_value()) assets.stop_token_ids.push_back(*eos);
  // Models that were tuned to chat often keep the base model's end token in config.json while turns end with another.
  for (const char* end_of_turn : {"<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"}) {
    const auto id = assets.tokenizer->TokenToId(end_of_turn);
    if (id.has_value() && assets.tokenizer->IsSpecial(*id)) assets.stop_token_ids.push_back(*id);
  }
  std::sort(assets.stop_token_ids.begin(), assets.stop_token_ids.end());
  assets.stop_token_ids.erase(std::unique(assets.stop_token_ids.begin(), assets.stop_token_ids.end()), assets.stop_token_ids.end());
  return assets;
}

absl::StatusOr<std::vector<int32_t>> PromptIds(const ModelAssets& assets, const std::vector<Message>& messages, int64_t now_unix) {
  if (assets.chat_template == nullptr) return absl::FailedPreconditionError("the model has no chat template; set dataset.chat_template");
  RenderOptions render;
  render.add_generation_prompt = true;
  render.bos_token = assets.bos_token;
  render.eos_token = assets.eos_token;
  render.pad_token = assets.pad_token;
  render.unk_token = assets.unk_token;
  render.now = absl::FromUnixSeconds(now_unix);
  FT_ASSIGN_OR_RETURN(const RenderedChat chat, assets.chat_template->Render(MessagesJson(messages), render));
  std::vector<int32_t> ids = assets.tokenizer->Encode(chat.text, /*add_special_tokens=*/false);
  const auto bos = assets.tokenizer->TokenToId(assets.bos_token);
  if (assets.tokenizer_adds_bos && bos.has_value() && (ids.empty() || ids.front() != *bos)) ids.insert(ids.begin(), *bos);
  return ids;
}

}  // namespace finetuned
