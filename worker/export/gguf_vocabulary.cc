#include "worker/export/gguf_vocabulary.h"

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace {

using nlohmann::json;

constexpr char kMetaspace[] = "\xE2\x96\x81";  // ▁
constexpr char kExportable[] =
    "can be exported: byte-level BPE with the pre-tokenizer of GPT-2, Llama 3, Qwen 2 or SmolLM, "
    "and SentencePiece BPE with "
    "byte fallback (Llama 2)";

// A component's field that is absent or null counts as `otherwise`.
template <typename T>
T Field(const json& component, const char* key, T otherwise) {
  const auto found = component.find(key);
  if (found == component.end() || found->is_null()) return otherwise;
  return found->get<T>();  // the types were checked when the tokenizer was built
}
std::string TypeOf(const json& component) {
  return component.is_object() ? Field<std::string>(component, "type", "") : "";
}

// The steps of a component in order; a Sequence stands for its parts, null for nothing. `list` is
// the key of those parts.
std::vector<json> Steps(const json& component, const char* list) {
  if (!component.is_object()) return {};
  if (TypeOf(component) != "Sequence") return {component};
  std::vector<json> steps;
  for (const json& part : component.at(list)) {
    for (json& step : Steps(part, list)) steps.push_back(std::move(step));
  }
  return steps;
}

std::string TypesOf(const std::vector<json>& steps) {
  std::string types;
  for (const json& step : steps) absl::StrAppend(&types, types.empty() ? "" : " + ", TypeOf(step));
  return types.empty() ? "none" : types;
}

bool LooksLikeControl(std::string_view token) {
  // Models forget to mark such tokens as special; llama.cpp's converter treats them alike.
  const auto framed = [token](std::string_view begin, std::string_view end) {
    return token.size() >= begin.size() + end.size() && token.starts_with(begin) &&
           token.ends_with(end);
  };
  return token == "<pad>" || token == "<mask>" || token == "<2mass>" || token == "[@BOS@]" ||
         framed("<|", "|>") || framed("<｜", "｜>") || framed("<unused", ">");
}

// "<0x0A>" → 10.
std::optional<uint8_t> ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  const int high = digit(token[3]), low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

// Texts and types of all ids; those without token, up to `rows`, are unused.
absl::Status ReadTokens(const Tokenizer& tokenizer, int64_t rows, GgufVocabulary& vocabulary) {
  if (tokenizer.vocab_size() > rows) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokenizer.json: token ids go up to ", tokenizer.vocab_size() - 1,
        " but the model's embedding has ", rows, " rows; the files do not belong together"));
  }
  const bool sentencepiece = vocabulary.model == "llama";
  vocabulary.tokens.resize(static_cast<size_t>(rows));
  vocabulary.types.assign(static_cast<size_t>(rows), kNormal);
  for (int64_t id = 0; id < rows; ++id) {
    const std::optional<std::string> token = tokenizer.IdToToken(static_cast<int32_t>(id));
    vocabulary.tokens[id] = token.value_or(absl::StrCat("[PAD", id, "]"));
    if (!token.has_value()) vocabulary.types[id] = kUnused;
    if (sentencepiece && token.has_value() && ByteOfToken(*token).has_value())
      vocabulary.types[id] = kByte;
  }
  for (const Tokenizer::AddedToken& added : tokenizer.added_tokens()) {
    std::string& text = vocabulary.tokens[added.id];
    text = added.content;
    if (added.special || LooksLikeControl(added.content)) {
      vocabulary.types[added.id] = kControl;
    } else {
      vocabulary.types[added.id] = kUserDefined;
      text = absl::StrReplaceAll(
          text, {{kMetaspace, " "}});  // llama.cpp looks for it before it writes spaces as ▁
    }
    if (added.lstrip || added.rstrip || added.single_word) {
      vocabulary.notes.push_back(
          absl::StrCat("llama.cpp has no lstrip, rstrip or single_word for the added token '",
                       added.content, "'"));
    }
  }
  absl::flat_hash_map<std::string_view, int64_t> ids;
  for (int64_t id = 0; id < rows; ++id) {
    if (vocabulary.tokens[id].empty())
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.json: token ", id, " is empty, which llama.cpp cannot hold"));
    const auto [other, is_new] = ids.emplace(vocabulary.tokens[id], id);
    if (!is_new) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tokenizer.json: ids ", other->second, " and ", id, " are both '", vocabulary.tokens[id],
          "' in llama.cpp's spelling, which needs distinct tokens"));
    }
  }
  return absl::OkStatus();
}

// llama.cpp's name of a byte-level pre-tokenizer.
absl::StatusOr<std::string> ByteLevelName(const std::vector<json>& steps,
                                          const Tokenizer& tokenizer, bool ignore_merges) {
  const std::string family = tokenizer.pre_tokenizer_name();
  if (family.empty()) {
    return absl::UnimplementedError(
        absl::StrCat("tokenizer.json: llama.cpp has no pre-tokenizer equal to this one (",
                     TypesOf(steps), "); ", kExportable));
  }
  if (Field(steps.back(), "add_prefix_space", true)) {
    return absl::UnimplementedError(
        "tokenizer.json: ByteLevel with add_prefix_space: true puts a space before a text, which "
        "llama.cpp does not");
  }
  if (family == "llama-bpe") return std::string(ignore_merges ? "llama-bpe" : "smaug-bpe");
  if (ignore_merges) {
    return absl::UnimplementedError(
        absl::StrCat("tokenizer.json: model.ignore_merges with the pre-tokenizer ", family,
                     " does not exist in llama.cpp, which has it with Llama 3's alone"));
  }
  return family;
}

absl::Status ReadByteLevel(const json& file, const Tokenizer& tokenizer, int64_t rows,
                           GgufVocabulary& vocabulary) {
  const json& model = file.at("model");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!Field<std::string>(model, key, "").empty()) {
      return absl::UnimplementedError(
          absl::StrCat("tokenizer.json: model.", key, " does not exist in llama.cpp"));
    }
  }
  for (const json& step : Steps(file.value("normalizer", json()), "normalizers")) {
    if (TypeOf(step) != "NFC") {
      return absl::UnimplementedError(
          absl::StrCat("tokenizer.json: llama.cpp does not apply the normalizer ", TypeOf(step),
                       " to byte-level BPE; none and NFC can be exported"));
    }
    vocabulary.notes.push_back(
        "llama.cpp does not bring text to Unicode's form NFC; text in another form gets other "
        "tokens there");
  }
  vocabulary.model = "gpt2";
  FT_ASSIGN_OR_RETURN(vocabulary.pre,
                      ByteLevelName(Steps(file.value("pre_tokenizer", json()), "pretokenizers"),
                                    tokenizer, Field(model, "ignore_merges", false)));
  FT_RETURN_IF_ERROR(ReadTokens(tokenizer, rows, vocabulary));
  for (const auto& [left, right] : tokenizer.merges()) {
    if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos) {
      return absl::UnimplementedError(
          absl::StrCat("tokenizer.json: the merge of '", left, "' and '", right,
                       "' contains a space, which GGUF's list of merges cannot hold"));
    }
    vocabulary.merges.push_back(absl::StrCat(left, " ", right));
  }
  return absl::OkStatus();
}

// How the file puts ▁ before a text: by the normalizer Prepend, or by the pre-tokenizer Metaspace.
absl::Status ReadSpacePrefix(const json& file, GgufVocabulary& vocabulary) {
  const std::vector<json> normalizers = Steps(file.value("normalizer", json()), "normalizers");
  const std::vector<json> pre_tokenizers =
      Steps(file.value("pre_tokenizer", json()), "pretokenizers");
  bool replaces = false;
  for (const json& step : normalizers) {
    if (TypeOf(step) == "Prepend" && Field<std::string>(step, "prepend", "") == kMetaspace &&
        !replaces && !vocabulary.add_space_prefix) {
      vocabulary.add_space_prefix = true;
    } else if (TypeOf(step) == "Replace" && !replaces && step.contains("pattern") &&
               step["pattern"] == json{{"String", " "}} &&
               Field<std::string>(step, "content", "") == kMetaspace) {
      replaces = true;
    } else {
      return absl::UnimplementedError(absl::StrCat("tokenizer.json: llama.cpp has no normalizer ",
                                                   TypeOf(step), " as it stands here; ",
                                                   kExportable));
    }
  }
  if (replaces && pre_tokenizers.empty()) return absl::OkStatus();
  if (normalizers.empty() && pre_tokenizers.size() == 1 &&
      TypeOf(pre_tokenizers[0]) == "Metaspace" && !Field(pre_tokenizers[0], "split", true) &&
      Field<std::string>(pre_tokenizers[0], "replacement", kMetaspace) == kMetaspace) {
    const bool add_prefix_space = Field(pre_tokenizers[0], "add_prefix_space", true);
    const std::string scheme = Field<std::string>(pre_tokenizers[0], "prepend_scheme",
                                                  add_prefix_space ? "always" : "never");
    vocabulary.add_space_prefix = scheme != "never";
    if (scheme != "never") {
      vocabulary.notes.push_back(
          absl::StrCat("llama.cpp puts a space also before a text that begins with one",
                       scheme == "first" ? " and behind special tokens" : ""));
    }
    return absl::OkStatus();
  }
  return absl::UnimplementedError(absl::StrCat(
      "tokenizer.json: llama.cpp has no counterpart of normalizer ", TypesOf(normalizers),
      " with pre-tokenizer ", TypesOf(pre_tokenizers), "; ", kExportable));
}

// Scores in the order of the merges, after checking that joining by score is the same as joining by
// the list.
absl::Status ReadScores(const Tokenizer& tokenizer, GgufVocabulary& vocabulary) {
  absl::flat_hash_map<std::string_view, int64_t> ids;
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.types[id] == kNormal) ids.emplace(vocabulary.tokens[id], id);
  }
  // A token that no merge makes is found by itself or not at all; as SentencePiece does, it scores
  // below all others.
  const auto merges = tokenizer.merges();
  vocabulary.scores.assign(vocabulary.tokens.size(), -static_cast<float>(merges.size()));
  std::vector<int32_t> splits(vocabulary.tokens.size(), 0);
  std::string joined;
  int64_t previous = -1, order = 0;
  for (const auto& [left, right] : merges) {
    joined = left + right;
    const auto token = ids.find(joined);
    if (token == ids.end() || !ids.contains(left) || !ids.contains(right))
      continue;  // of special tokens: found before merging
    if (token->second != previous && splits[token->second] != 0) {
      return absl::UnimplementedError(
          absl::StrCat("tokenizer.json: the merges that make '", joined,
                       "' do not stand together, so that no score says their order in llama.cpp"));
    }
    if (token->second != previous) vocabulary.scores[token->second] = -static_cast<float>(order++);
    ++splits[token->second];
    previous = token->second;
  }
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.types[id] != kNormal) {
      vocabulary.scores[id] = vocabulary.types[id] == kByte ? 0.0f : -1000.0f;
      continue;
    }
    const std::string_view token = vocabulary.tokens[id];
    int32_t possible = 0;
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const bool within_character = (static_cast<unsigned char>(token[cut]) & 0xC0) == 0x80;
      if (!within_character && ids.contains(token.substr(0, cut)) &&
          ids.contains(token.substr(cut)))
        ++possible;
    }
    if (possible != splits[id]) {
      return absl::UnimplementedError(absl::StrCat("tokenizer.json: '", std::string(token),
                                                   "' can be joined from two tokens in ", possible,
                                                   " ways of which the merges list ", splits[id],
                                                   "; llama.cpp would do all of them, so this is "
                                                   "no SentencePiece BPE and cannot be exported"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadSentencePiece(const json& file, const Tokenizer& tokenizer, int64_t rows,
                               GgufVocabulary& vocabulary) {
  vocabulary.model = "llama";
  vocabulary.pre = "default";
  FT_RETURN_IF_ERROR(ReadSpacePrefix(file, vocabulary));
  if (Field(file.at("model"), "ignore_merges", false)) {
    return absl::UnimplementedError(
        "tokenizer.json: model.ignore_merges does not exist in llama.cpp's SentencePiece "
        "tokenizer");
  }
  FT_RETURN_IF_ERROR(ReadTokens(tokenizer, rows, vocabulary));
  std::array<bool, 256> bytes{};
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (vocabulary.types[id] == kByte) bytes[*ByteOfToken(vocabulary.tokens[id])] = true;
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (!bytes[byte])
      return absl::UnimplementedError(absl::StrCat("tokenizer.json: no token for byte ", byte,
                                                   "; llama.cpp needs all of <0x00> to <0xFF>"));
  }
  const std::string unknown = Field<std::string>(file.at("model"), "unk_token", "");
  if (const auto id = tokenizer.TokenToId(unknown); !unknown.empty() && id.has_value())
    vocabulary.types[*id] = kUnknown;
  return ReadScores(tokenizer, vocabulary);
}

}  // namespace

absl::StatusOr<GgufVocabulary> ReadGgufVocabulary(const nlohmann::json& file,
                                                  const Tokenizer& tokenizer, int64_t rows) {
  GgufVocabulary vocabulary;
  if (const std::string type = Field<std::string>(file.at("model"), "type", "BPE"); type != "BPE") {
    return absl::UnimplementedError(
        absl::StrCat("tokenizer.json: a model of type ", type, " is not exported; ", kExportable));
  }
  const std::vector<json> pre_tokenizers =
      Steps(file.value("pre_tokenizer", json()), "pretokenizers");
  const bool byte_level = !pre_tokenizers.empty() && TypeOf(pre_tokenizers.back()) == "ByteLevel";
  if (Field(file.at("model"), "byte_fallback", false) && !byte_level) {
    FT_RETURN_IF_ERROR(ReadSentencePiece(file, tokenizer, rows, vocabulary));
  } else {
    FT_RETURN_IF_ERROR(ReadByteLevel(file, tokenizer, rows, vocabulary));
  }
  return vocabulary;
}

}  // namespace finetuned
