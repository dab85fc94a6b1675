#include "worker/text/tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "worker/text/json_fields.h"
#include "worker/text/peer_json.h"
#include "worker/text/sentencepiece.h"
#include "worker/text/tiktoken.h"
#include "worker/text/tokenizer_parts.h"
#include "worker/text/unicode.h"

namespace finetuned {

struct Tokenizer::Parts : TokenizerParts {
  absl::flat_hash_map<std::string_view, const AddedToken*> added_by_content;
  absl::flat_hash_map<int32_t, const AddedToken*> added_by_id;
  AddedTokenMatcher in_raw_text, in_normalized_text;
  // How Decode writes added tokens that normalization changes: as normalized, for so does Hugging
  // Face.
  absl::flat_hash_map<int32_t, std::string> decoded_added;
  absl::flat_hash_set<std::string> special_contents;
  int32_t vocab_size = 0;

  absl::Status ReadAddedTokens(const JsonFields& root);
  // Fills what is derived from `added`, which must not change any more.
  void IndexAddedTokens();
  absl::Status CheckSpecialIds(const std::vector<int32_t>& ids) const;
  const std::string* IdToToken(int32_t id) const;
};

namespace {

// What FromFile looks for in a directory, the first there is.
constexpr const char* kFileNames[] = {"tokenizer.json", "tokenizer.model", "tekken.json"};

std::string Normalized(const Normalizer* normalizer, std::string_view text) {
  AlignedText aligned(text, 0, /*track=*/false);
  if (normalizer != nullptr) normalizer->Apply(aligned);
  return std::string(aligned.text());
}

// All but the id.
absl::StatusOr<AddedToken> ReadAddedToken(const JsonFields& fields) {
  AddedToken token{};
  FT_ASSIGN_OR_RETURN(token.content, fields.String("content"));
  FT_ASSIGN_OR_RETURN(token.special, fields.BoolOr("special", false));
  FT_ASSIGN_OR_RETURN(token.single_word, fields.BoolOr("single_word", false));
  FT_ASSIGN_OR_RETURN(token.lstrip, fields.BoolOr("lstrip", false));
  FT_ASSIGN_OR_RETURN(token.rstrip, fields.BoolOr("rstrip", false));
  FT_ASSIGN_OR_RETURN(token.normalized, fields.BoolOr("normalized", !token.special));
  return token;
}

// `added_tokens_decoder` of a tokenizer_config.json, which holds the special tokens of files that
// have none themselves: {"id": {"content": …, flags}, …}. What the file has is not touched.
absl::Status AddConfiguredTokens(std::string_view tokenizer_config, TokenizerParts& parts) {
  if (tokenizer_config.empty()) return absl::OkStatus();
  const nlohmann::json config =
      nlohmann::json::parse(tokenizer_config, nullptr, /*allow_exceptions=*/false);
  FT_ASSIGN_OR_RETURN(const JsonFields root, JsonFields::Of(config, "tokenizer_config.json"));
  if (!root.Has("added_tokens_decoder")) return absl::OkStatus();
  FT_ASSIGN_OR_RETURN(const nlohmann::json* tokens, root.Object("added_tokens_decoder"));
  absl::flat_hash_set<std::string> contents;
  absl::flat_hash_set<int32_t> ids;
  for (const AddedToken& token : parts.added) {
    contents.insert(token.content);
    ids.insert(token.id);
  }
  for (const auto& [key, value] : tokens->items()) {
    FT_ASSIGN_OR_RETURN(const JsonFields fields,
                        JsonFields::Of(value, "tokenizer_config.json.added_tokens_decoder." + key));
    FT_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(fields));
    if (!absl::SimpleAtoi(key, &token.id) || token.id < 0 || token.id > TokenModel::kMaxTokenId)
      return root.Error("added_tokens_decoder", absl::StrCat("has a key '", key, "', no id"));
    const std::string* known = parts.model->IdToToken(token.id);
    // A vocabulary has the last word about its ids.
    if (token.content.empty() || (known != nullptr && *known != token.content)) continue;
    if (!contents.insert(token.content).second || !ids.insert(token.id).second) continue;
    parts.added.push_back(std::move(token));
  }
  return absl::OkStatus();
}

// The text with ill-formed UTF-8 replaced, each U+FFFD standing for the bytes it replaces.
AlignedText Sanitized(std::string_view text, bool track) {
  const AlignedText original(text, 0, track);
  if (unicode::ValidUtf8Prefix(text) == text.size()) return original;
  AlignedText out = AlignedText::Rewrite(original);
  for (size_t at = 0; at < text.size();) {
    const size_t valid = unicode::ValidUtf8Prefix(text.substr(at));
    out.AppendCopy(original, static_cast<uint32_t>(at), static_cast<uint32_t>(at + valid));
    at += valid;
    if (at == text.size()) break;
    const size_t ill_formed = unicode::IllFormedLength(text.substr(at));
    out.AppendMapped(original, static_cast<uint32_t>(at), static_cast<uint32_t>(at + ill_formed),
                     "\xEF\xBF\xBD");
    at += ill_formed;
  }
  return out;
}

absl::Status WithName(const absl::Status& status, std::string_view name) {
  return status.ok()
             ? status
             : absl::Status(status.code(), absl::StrCat(std::string(name), ": ", status.message()));
}

}  // namespace

// Hugging Face gives ids itself, whatever the file says: that of the vocabulary, else the next one
// behind it. A later entry of the same content replaces the flags of an earlier one.
absl::Status Tokenizer::Parts::ReadAddedTokens(const JsonFields& root) {
  if (!root.Has("added_tokens")) return absl::OkStatus();
  FT_ASSIGN_OR_RETURN(const nlohmann::json* list, root.Array("added_tokens"));
  absl::flat_hash_map<std::string, int32_t> given;
  absl::flat_hash_map<int32_t, size_t> place;  // in `added`
  int32_t next = model->token_count();
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = absl::StrCat("added_tokens[", i, "]");
    FT_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Of((*list)[i], path));
    FT_RETURN_IF_ERROR(fields.Integer("id", 0, TokenModel::kMaxTokenId).status());
    FT_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(fields));
    if (token.content.empty()) continue;
    const auto [entry, is_new] = given.try_emplace(token.content, -1);
    if (is_new) {
      const std::optional<int32_t> known = model->TokenToId(token.content);
      entry->second = known.has_value() ? *known : next++;
    }
    token.id = entry->second;
    if (token.special) special_contents.insert(token.content);
    const auto [at, first] = place.try_emplace(token.id, added.size());
    if (first) {
      added.push_back(std::move(token));
    } else {
      added[at->second] = std::move(token);
    }
  }
  return absl::OkStatus();
}

void Tokenizer::Parts::IndexAddedTokens() {
  vocab_size = model->id_limit();
  for (const AddedToken& token : added) {
    vocab_size = std::max(vocab_size, token.id + 1);
    if (token.special) special_contents.insert(token.content);
    added_by_content.emplace(token.content, &token);
    added_by_id.emplace(token.id, &token);
    if (token.normalized) {
      const std::string content = Normalized(normalizer.get(), token.content);
      in_normalized_text.Add(content, &token);
      if (content != token.content) decoded_added.emplace(token.id, content);
    } else {
      in_raw_text.Add(token.content, &token);
    }
  }
}

absl::Status Tokenizer::Parts::CheckSpecialIds(const std::vector<int32_t>& ids) const {
  for (int32_t id : ids) {
    if (IdToToken(id) == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("post_processor adds id ", id, ", which is no token"));
    }
  }
  return absl::OkStatus();
}

const std::string* Tokenizer::Parts::IdToToken(int32_t id) const {
  if (const auto it = added_by_id.find(id); it != added_by_id.end()) return &it->second->content;
  return model->IdToToken(id);
}

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromFile(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    for (const char* name : kFileNames) {
      const std::string file = absl::StrCat(path, "/", name);
      if (std::filesystem::exists(file, ignored)) return FromFile(file);
    }
    return absl::NotFoundError(
        absl::StrCat(path, " holds none of the tokenizer files ", absl::StrJoin(kFileNames, ", ")));
  }
  FT_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
  const std::string config =
      (std::filesystem::path(path).parent_path() / "tokenizer_config.json").string();
  if (!std::filesystem::exists(config, ignored)) return FromBytes(bytes, path);
  FT_ASSIGN_OR_RETURN(const std::string config_json, ReadFile(config));
  return FromBytes(bytes, path, config_json);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromBytes(std::string_view bytes,
                                                                std::string_view name,
                                                                std::string_view tokenizer_config) {
  const size_t first = bytes.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos)
    return absl::InvalidArgumentError(absl::StrCat(std::string(name), ": is empty"));
  absl::StatusOr<TokenizerParts> read;
  if (LooksLikeTekken(bytes)) {
    read = ReadTekken(bytes);
  } else if (bytes[first] == '{' || bytes[first] == '[') {
    return FromJson(bytes, name);
  } else if (LooksLikeTiktoken(bytes)) {
    read = ReadTiktoken(bytes);
  } else {
    read = ReadSentencePiece(bytes);
  }
  if (!read.ok()) return WithName(read.status(), name);
  auto parts = std::make_unique<Parts>();
  static_cast<TokenizerParts&>(*parts) = *std::move(read);
  if (const absl::Status status = AddConfiguredTokens(tokenizer_config, *parts); !status.ok())
    return WithName(status, name);
  parts->IndexAddedTokens();
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts)));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(std::string_view json,
                                                               std::string_view name) {
  const nlohmann::json value = ParsePeerJson(json);
  if (value.is_discarded())
    return absl::InvalidArgumentError(absl::StrCat(std::string(name), ": is not well-formed JSON"));
  const auto build = [&value]() -> absl::StatusOr<std::unique_ptr<Parts>> {
    auto parts = std::make_unique<Parts>();
    FT_ASSIGN_OR_RETURN(const JsonFields root, JsonFields::Of(value, "the file"));
    FT_ASSIGN_OR_RETURN(const nlohmann::json* model_value, root.Object("model"));
    FT_ASSIGN_OR_RETURN(const JsonFields model, JsonFields::Of(*model_value, "model"));
    FT_ASSIGN_OR_RETURN(parts->model, MakeTokenModel(model));
    // By reference: copying a value recurses, and a hostile file may nest it deeply.
    static const nlohmann::json kNull;
    const auto component = [&root](std::string_view key) -> const nlohmann::json& {
      const nlohmann::json* found = root.Find(key);
      return found == nullptr ? kNull : *found;
    };
    FT_ASSIGN_OR_RETURN(parts->normalizer, MakeNormalizer(component("normalizer"), "normalizer"));
    FT_ASSIGN_OR_RETURN(parts->pre_tokenization,
                        MakePreTokenizer(component("pre_tokenizer"), "pre_tokenizer",
                                         parts->model->CanTakeRawBytes()));
    if (parts->pre_tokenization.raw_bytes) parts->model->TakeRawBytes();
    FT_RETURN_IF_ERROR(parts->model->CheckUnknownToken());
    FT_ASSIGN_OR_RETURN(parts->decoder, MakeDecoder(component("decoder"), "decoder"));
    FT_RETURN_IF_ERROR(parts->ReadAddedTokens(root));
    parts->IndexAddedTokens();
    FT_ASSIGN_OR_RETURN(parts->special,
                        ReadPostProcessor(component("post_processor"), "post_processor"));
    FT_RETURN_IF_ERROR(parts->CheckSpecialIds(parts->special.before));
    FT_RETURN_IF_ERROR(parts->CheckSpecialIds(parts->special.after));
    return parts;
  };
  absl::StatusOr<std::unique_ptr<Parts>> parts = build();
  if (!parts.ok()) return WithName(parts.status(), name);
  return std::unique_ptr<Tokenizer>(new Tokenizer(*std::move(parts)));
}

void Tokenizer::EncodeTo(std::string_view text, bool add_special_tokens, Encoding& out,
                         bool with_offsets) const {
  const auto add = [&out, with_offsets](int32_t id, size_t begin, size_t end) {
    out.ids.push_back(id);
    if (with_offsets) out.offsets.emplace_back(begin, end);
  };
  if (add_special_tokens) {
    for (int32_t id : parts_->special.before) add(id, 0, 0);
  }
  const AlignedText whole = Sanitized(text, with_offsets || parts_->pre_tokenization.needs_origin);
  const auto add_token = [&add, with_offsets](const AddedToken& token, const AlignedText& in,
                                              Span span) {
    const Span origin =
        with_offsets && span.begin < span.end ? in.OriginOf(span.begin, span.end) : Span{};
    add(token.id, origin.begin, origin.end);
  };
  uint32_t first_character = 0;
  if (parts_->pre_tokenization.needs_origin && whole.size() > 0) {
    const auto lead = static_cast<unsigned char>(whole.text()[0]);
    first_character = whole.OriginOf(0, static_cast<uint32_t>(unicode::SequenceLength(lead))).end;
  }
  std::vector<uint32_t> lengths;
  std::vector<AddedTokenMatcher::Part> raw_parts, parts;
  parts_->in_raw_text.Split(whole.text(), raw_parts);
  for (const AddedTokenMatcher::Part& raw : raw_parts) {
    if (raw.token != nullptr) {
      add_token(*raw.token, whole, raw.span);
      continue;
    }
    AlignedText normalized = whole.Slice(raw.span.begin, raw.span.end);
    if (parts_->normalizer != nullptr) parts_->normalizer->Apply(normalized);
    parts.clear();
    parts_->in_normalized_text.Split(normalized.text(), parts);
    for (const AddedTokenMatcher::Part& part : parts) {
      if (part.token != nullptr) {
        add_token(*part.token, normalized, part.span);
        continue;
      }
      PreTokens tokens;
      tokens.text = parts.size() == 1 ? std::move(normalized)
                                      : normalized.Slice(part.span.begin, part.span.end);
      tokens.spans.push_back({0, tokens.text.size()});
      tokens.first_character = first_character;
      if (parts_->pre_tokenization.pre_tokenizer != nullptr)
        parts_->pre_tokenization.pre_tokenizer->Apply(tokens);
      const std::string_view words = tokens.text.text();
      for (const Span& span : tokens.spans) {
        const std::string_view word = words.substr(span.begin, span.end - span.begin);
        lengths.clear();
        parts_->model->Tokenize(word, out.ids, with_offsets ? &lengths : nullptr);
        uint32_t begin = span.begin;
        for (const uint32_t length : lengths) {
          const Span origin = length > 0 ? tokens.text.OriginOf(begin, begin + length) : Span{};
          out.offsets.emplace_back(origin.begin, origin.end);
          begin += length;
        }
      }
    }
  }
  if (add_special_tokens) {
    for (int32_t id : parts_->special.after) add(id, text.size(), text.size());
  }
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  Encoding out;
  EncodeTo(text, add_special_tokens, out, /*with_offsets=*/false);
  return std::move(out.ids);
}

Tokenizer::Encoding Tokenizer::EncodeWithOffsets(std::string_view text,
                                                 bool add_special_tokens) const {
  Encoding out;
  EncodeTo(text, add_special_tokens, out, /*with_offsets=*/true);
  return out;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (int32_t id : ids) {
    const auto changed = parts_->decoded_added.find(id);
    const std::string* token =
        changed != parts_->decoded_added.end() ? &changed->second : parts_->IdToToken(id);
    if (token == nullptr) continue;
    // By what it says, not by its id: so does Hugging Face, and a special token that the normalizer
    // changes is not left out.
    if (skip_special_tokens && parts_->special_contents.contains(*token)) continue;
    tokens.push_back(*token);
  }
  if (parts_->decoder == nullptr) return absl::StrJoin(tokens, " ");
  return absl::StrJoin(parts_->decoder->Apply(std::move(tokens)), "");
}

int32_t Tokenizer::vocab_size() const { return parts_->vocab_size; }

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  if (const auto it = parts_->added_by_content.find(token); it != parts_->added_by_content.end())
    return it->second->id;
  return parts_->model->TokenToId(token);
}

std::optional<std::string> Tokenizer::IdToToken(int32_t id) const {
  const std::string* token = parts_->IdToToken(id);
  return token == nullptr ? std::nullopt : std::optional(*token);
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const auto it = parts_->added_by_id.find(id);
  return it != parts_->added_by_id.end() && it->second->special;
}

const std::vector<AddedToken>& Tokenizer::added_tokens() const { return parts_->added; }

absl::Span<const std::pair<std::string, std::string>> Tokenizer::merges() const {
  return parts_->model->merges();
}

std::string Tokenizer::pre_tokenizer_name() const { return parts_->pre_tokenization.family; }

}  // namespace finetuned
