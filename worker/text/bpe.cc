#include "worker/text/bpe.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/base/status_macros.h"
#include "worker/text/byte_level.h"
#include "worker/text/unicode.h"
#include "worker/text/word_cache.h"

namespace finetuned {
absl::StatusOr<std::unique_ptr<TokenModel>> BpeModel::FromJson(const JsonFields& model) {
  auto bpe = std::make_unique<BpeModel>();
  bool merge = true;
  if (const nlohmann::json* dropout = model.Find("dropout")) {
    if (!dropout->is_number()) return model.Error("dropout", "must be a number or null");
    merge = dropout->get<double>() != 1.0;  // then every merge is dropped
    if (dropout->get<double>() != 0.0 && merge) {
      return absl::UnimplementedError(
          absl::StrCat(model.path(), ".dropout is ", dropout->get<double>(),
                       ", which makes token ids random and is not supported; set it to null in the "
                       "tokenizer.json"));
    }
  }
  FT_RETURN_IF_ERROR(bpe->vocabulary_.Read(model));
  FT_ASSIGN_OR_RETURN(bpe->prefix_, model.StringOr("continuing_subword_prefix", ""));
  FT_ASSIGN_OR_RETURN(bpe->suffix_, model.StringOr("end_of_word_suffix", ""));
  FT_ASSIGN_OR_RETURN(bpe->fuse_unk_, model.BoolOr("fuse_unk", false));
  FT_ASSIGN_OR_RETURN(bpe->byte_fallback_, model.BoolOr("byte_fallback", false));
  FT_ASSIGN_OR_RETURN(bpe->ignore_merges_, model.BoolOr("ignore_merges", false));
  bpe->has_unk_ = model.Has("unk_token");
  FT_ASSIGN_OR_RETURN(bpe->unk_token_, model.StringOr("unk_token", ""));
  if (bpe->has_unk_) bpe->unk_id_ = bpe->TokenToId(bpe->unk_token_);
  for (int byte = 0; byte < 256; ++byte) {
    bpe->fallback_ids_[byte] = bpe->TokenToId(absl::StrFormat("<0x%02X>", byte)).value_or(-1);
  }
  FT_RETURN_IF_ERROR(bpe->ReadMerges(model));
  if (!merge) {
    bpe->pairs_.Reset(0);
    bpe->ignore_merges_ = false;
  }
  bpe->FindJoints();
  return bpe;
}

absl::Status BpeModel::ReadMerges(const JsonFields& model) {
  FT_ASSIGN_OR_RETURN(const nlohmann::json* merges, model.Array("merges"));
  pairs_.Reset(merges->size());
  merges_.reserve(merges->size());
  for (size_t i = 0; i < merges->size(); ++i) {
    const nlohmann::json& merge = (*merges)[i];
    const std::string where = absl::StrCat(model.path(), ".merges[", i, "]");
    std::string left, right;
    if (merge.is_string()) {  // before tokenizers 0.20: "left right"
      const auto& line = merge.get_ref<const std::string&>();
      if (line.starts_with("#version")) continue;
      const size_t space = line.find(' ');
      if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
        return absl::InvalidArgumentError(
            absl::StrCat(where, " is '", line, "'; it must be two tokens with one space between"));
      }
      left = line.substr(0, space);
      right = line.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat(where, " must be a string or an array of two strings"));
    }
    if (right.size() < prefix_.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          where, ": '", right, "' is shorter than continuing_subword_prefix '", prefix_, "'"));
    }
    const std::string joined = left + right.substr(prefix_.size());
    const std::optional<int32_t> left_id = TokenToId(left), right_id = TokenToId(right),
                                 joined_id = TokenToId(joined);
    const std::string* missing = !left_id.has_value()     ? &left
                                 : !right_id.has_value()  ? &right
                                 : !joined_id.has_value() ? &joined
                                                          : nullptr;
    if (missing != nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(where, " ('", left, "' + '", right,
                                                     "') needs token '", *missing,
                                                     "', which model.vocab does not hold"));
    }
    pairs_.Insert(*left_id, *right_id, {static_cast<uint32_t>(merges_.size()), *joined_id});
    merges_.emplace_back(std::move(left), std::move(right));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TokenModel>> BpeModel::FromRanks(std::vector<std::string> tokens) {
  auto bpe = std::make_unique<BpeModel>();
  std::vector<std::string> spelled(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    for (const char byte : tokens[id])
      unicode::AppendUtf8(byte_level::CharacterOf(static_cast<unsigned char>(byte)), spelled[id]);
  }
  bpe->vocabulary_.Set(std::move(spelled));
  bpe->ignore_merges_ = true;
  bpe->TakeRawBytes();
  const auto present = [](const std::string& token) { return !token.empty(); };
  if (static_cast<size_t>(std::count_if(tokens.begin(), tokens.end(), present)) !=
      bpe->raw_ids_.size())
    return absl::InvalidArgumentError("holds a token twice");
  if (!bpe->complete_alphabet_)
    return absl::InvalidArgumentError("lacks a token for one of the 256 bytes");
  struct Rule {
    int32_t left, right, result;
  };
  std::vector<Rule> rules;
  JointTable joints;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    for (size_t at = 1; at < token.size(); ++at) {
      const auto left = bpe->raw_ids_.find(token.substr(0, at));
      const auto right = bpe->raw_ids_.find(token.substr(at));
      if (left == bpe->raw_ids_.end() || right == bpe->raw_ids_.end()) continue;
      rules.push_back({left->second, right->second, static_cast<int32_t>(id)});
      joints.Add(static_cast<unsigned char>(token[at - 1]), static_cast<unsigned char>(token[at]));
    }
  }
  bpe->pairs_.Reset(rules.size());
  for (const Rule& rule : rules)
    bpe->pairs_.Insert(rule.left, rule.right, {static_cast<uint32_t>(rule.result), rule.result});
  bpe->joints_ = std::move(joints);
  return bpe;
}

void BpeModel::TakeRawBytes() {
  raw_bytes_ = true;
  complete_alphabet_ = true;
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    unicode::AppendUtf8(byte_level::CharacterOf(static_cast<unsigned char>(byte)), character);
    byte_ids_[byte] = TokenToId(character).value_or(-1);
    complete_alphabet_ &= byte_ids_[byte] >= 0;
  }
  raw_tokens_.resize(static_cast<size_t>(id_limit()));
  raw_ids_.reserve(raw_tokens_.size());
  for (int32_t id = 0; id < id_limit(); ++id) {
    const std::string* token = IdToToken(id);
    if (token == nullptr || !byte_level::AppendBytes(*token, raw_tokens_[id]) || token->empty())
      continue;
    raw_ids_.emplace(raw_tokens_[id], id);
  }
  FindJoints();
}

absl::Status BpeModel::CheckUnknownToken() const {
  if (!has_unk_ || unk_id_.has_value()) return absl::OkStatus();
  const bool bytes_suffice = raw_bytes_ && complete_alphabet_;
  const bool fallback_suffices =
      byte_fallback_ &&
      std::all_of(fallback_ids_.begin(), fallback_ids_.end(), [](int32_t id) { return id >= 0; });
  if (bytes_suffice || fallback_suffices) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "model.unk_token is '", unk_token_,
      "', which model.vocab does not hold; text with unknown characters could not be tokenized"));
}

void BpeModel::TokenizeWord(std::string_view word, std::vector<int32_t>& ids,
                            std::vector<uint32_t>* lengths) const {
  if (ignore_merges_) {
    std::optional<int32_t> id = raw_bytes_ ? std::nullopt : TokenToId(word);
    if (const auto it = raw_ids_.find(word); it != raw_ids_.end()) id = it->second;
    if (id.has_value()) {
      ids.push_back(*id);
      if (lengths != nullptr) lengths->push_back(static_cast<uint32_t>(word.size()));
      return;
    }
  }
  // What no merge joins is cut apart first: the parts are words that come again, and each is short.
  if (!joints_.has_value() || WordCache::Fits(word)) return TokenizeSegment(word, ids, lengths);
  const auto flush = [&](std::string_view segment) {
    if (lengths != nullptr) return TokenizeSegment(segment, ids, lengths);
    Cached(segment_serial_, segment, ids, [&] { TokenizeSegment(segment, ids, nullptr); });
  };
  size_t begin = 0, i = 0;
  for (char32_t left = NextUnit(word, i); i < word.size();) {
    const size_t at = i;
    const char32_t right = NextUnit(word, i);
    // An unknown character may fuse with what is before it.
    if (!joints_->MayJoin(left, right) &&
        (raw_bytes_ || TokenToId(word.substr(at, i - at)).has_value())) {
      flush(word.substr(begin, at - begin));
      begin = at;
    }
    left = right;
  }
  flush(word.substr(begin));
}

char32_t BpeModel::NextUnit(std::string_view word, size_t& position) const {
  return raw_bytes_ ? static_cast<unsigned char>(word[position++])
                    : unicode::DecodeUtf8(word, position);
}

void BpeModel::FindJoints() {
  joints_.reset();
  if (!prefix_.empty() || !suffix_.empty()) return;
  // Where a character may leave nothing, its bytes count to a neighbour that a cut could take away.
  if (raw_bytes_ ? !complete_alphabet_ : !unk_id_.has_value()) return;
  const auto unspelled = [this](const std::string& token) {
    const int32_t id = *TokenToId(token);
    return id == unk_id_ || (byte_fallback_ && std::find(fallback_ids_.begin(), fallback_ids_.end(),
                                                         id) != fallback_ids_.end());
  };
  JointTable joints;
  for (const auto& [left, right] : merges_) {
    if (left.empty() || right.empty()) continue;
    // Symbols that stand for something else than they spell could join anything.
    if (!raw_bytes_ && (unspelled(left) || unspelled(right))) return;
    size_t last = unicode::PreviousCodePoint(left, left.size()), first = 0;
    char32_t before = unicode::DecodeUtf8(left, last), after = unicode::DecodeUtf8(right, first);
    if (raw_bytes_) {
      const auto before_byte = byte_level::ByteOf(before), after_byte = byte_level::ByteOf(after);
      if (!before_byte.has_value() || !after_byte.has_value()) continue;  // no text is spelled so
      before = *before_byte;
      after = *after_byte;
    }
    joints.Add(before, after);
  }
  joints_ = std::move(joints);
}

void BpeModel::TokenizeSegment(std::string_view word, std::vector<int32_t>& ids,
                               std::vector<uint32_t>* lengths) const {
  thread_local std::vector<Symbol> symbols;
  symbols.clear();
  InitialSymbols(word, symbols);
  MergeSymbols(pairs_, symbols);
  for (const Symbol& symbol : symbols) {
    ids.push_back(symbol.id);
    if (lengths != nullptr) lengths->push_back(symbol.length);
  }
  // One enormous word must not keep its memory for the rest of the thread's life.
  if (symbols.capacity() > (1 << 16)) std::vector<Symbol>().swap(symbols);
}

void BpeModel::InitialSymbols(std::string_view word, std::vector<Symbol>& symbols) const {
  if (raw_bytes_ && complete_alphabet_) {
    for (char byte : word) symbols.push_back({byte_ids_[static_cast<unsigned char>(byte)], 1});
    return;
  }
  std::optional<Symbol> unknown;  // not yet added, for it may grow
  uint32_t skipped = 0;           // bytes in front that no symbol covers
  const auto add = [&symbols, &skipped](Symbol symbol) {
    symbol.length += skipped;
    skipped = 0;
    symbols.push_back(symbol);
  };
  std::string spelled;
  for (size_t i = 0; i < word.size();) {
    const size_t begin = i;
    i += raw_bytes_ ? 1 : unicode::SequenceLength(static_cast<unsigned char>(word[i]));
    const auto length = static_cast<uint32_t>(i - begin);
    int32_t id = -1;
    if (raw_bytes_) {
      id = byte_ids_[static_cast<unsigned char>(word[begin])];
    } else {
      spelled.clear();
      if (begin != 0) spelled = prefix_;
      spelled.append(word.substr(begin, length));
      if (i == word.size()) spelled.append(suffix_);
      id = TokenToId(spelled).value_or(-1);
    }
    if (id >= 0) {
      if (unknown.has_value()) add(*unknown);
      unknown.reset();
      add({id, length});
      continue;
    }
    if (byte_fallback_ && std::all_of(spelled.begin(), spelled.end(), [this](char byte) {
          return fallback_ids_[static_cast<unsigned char>(byte)] >= 0;
        })) {
      // The bytes of a prefix or suffix are spelled too but cover none of the word. An unknown
      // token before them is added after them: Hugging Face does so, and ids have to be equal.
      const size_t own = begin != 0 ? prefix_.size() : 0;
      for (size_t k = 0; k < spelled.size(); ++k) {
        add({fallback_ids_[static_cast<unsigned char>(spelled[k])],
             k >= own && k < own + length ? 1u : 0u});
      }
      continue;
    }
    if (!unk_id_.has_value()) {
      if (symbols.empty()) {
        skipped += length;
      } else {
        symbols.back().length += length;
      }
      continue;
    }
    if (unknown.has_value() && fuse_unk_) {
      unknown->length += length;
    } else {
      if (unknown.has_value()) add(*unknown);
      unknown = Symbol{*unk_id_, length};
    }
  }
  if (unknown.has_value()) add(*unknown);
}

}  // namespace finetuned
