#include "worker/text/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/base/status_macros.h"
#include "worker/text/bpe_merge.h"
#include "worker/text/chars_map.h"
#include "worker/text/double_array.h"
#include "worker/text/unicode.h"
#include "worker/text/viterbi.h"
#include "worker/text/word_cache.h"

namespace finetuned {
namespace {

using Proto = SentencePieceProto;

constexpr std::string_view kSpaceSymbol = "\u2581";

// Length of the longest key at the start of `text`; 0 when there is none.
size_t LongestKey(const DoubleArray& keys, std::string_view text) {
  size_t length = 0;
  uint32_t node = DoubleArray::kRoot;
  for (size_t i = 0; i < text.size(); ++i) {
    node = keys.Next(node, static_cast<unsigned char>(text[i]));
    if (node == DoubleArray::kNone) break;
    if (keys.Value(node) >= 0) length = i + 1;
  }
  return length;
}

DoubleArray UserDefinedPieces(const Proto& proto) {
  std::vector<std::pair<std::string_view, int32_t>> keys;
  for (size_t id = 0; id < proto.pieces.size(); ++id) {
    if (proto.pieces[id].type == Proto::kUserDefined)
      keys.emplace_back(proto.pieces[id].text, static_cast<int32_t>(id));
  }
  DoubleArray trie;
  trie.Build(std::move(keys));
  return trie;
}

// The character map (longest key first), then blanks: doubled ones and those at the ends may go,
// one may be put in front, and all become the space symbol. User-defined pieces pass as they are.
class SentencePieceNormalizer : public Normalizer {
 public:
  SentencePieceNormalizer(const Proto& proto, std::optional<CharsMap> map)
      : map_(std::move(map)),
        user_defined_(UserDefinedPieces(proto)),
        dummy_prefix_(proto.add_dummy_prefix),
        suffix_(proto.treat_whitespace_as_suffix),
        remove_extra_(proto.remove_extra_whitespaces),
        space_(proto.escape_whitespaces ? kSpaceSymbol : " ") {}

  void Apply(AlignedText& text) const override {
    const std::string_view in = text.text();
    size_t at = 0;
    size_t length = 0;
    while (remove_extra_ && at < in.size() && Prefix(in.substr(at), length) == " ") at += length;
    if (at == in.size()) {
      text = text.Slice(0, 0);
      return;
    }
    // What comes out: text, the bytes of `in` that it stands for, whether it is a blank.
    struct Chunk {
      std::string_view text;
      uint32_t begin, end;
    };
    std::vector<Chunk> out;
    const auto add_space = [&](size_t begin, size_t end) {
      out.push_back({space_, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    };
    if (dummy_prefix_ && !suffix_) add_space(at, at + unicode::SequenceLength(in[at]));
    bool after_space = remove_extra_;
    for (; at < in.size(); at += length) {
      std::string_view piece = Prefix(in.substr(at), length);
      while (after_space && piece.starts_with(' ')) piece.remove_prefix(1);
      if (!piece.empty()) after_space = remove_extra_ && piece.ends_with(' ');
      while (!piece.empty()) {
        if (piece[0] == ' ') {
          add_space(at, at + length);
          piece.remove_prefix(1);
          continue;
        }
        const std::string_view plain = piece.substr(0, piece.find(' '));
        out.push_back({plain, static_cast<uint32_t>(at), static_cast<uint32_t>(at + length)});
        piece.remove_prefix(plain.size());
      }
    }
    // Also a space symbol that the text itself ends in goes.
    while (remove_extra_ && !out.empty() && out.back().text.ends_with(space_)) {
      out.back().text.remove_suffix(space_.size());
      if (out.back().text.empty()) out.pop_back();
    }
    if (dummy_prefix_ && suffix_) {
      const size_t last = unicode::PreviousCodePoint(in, in.size());
      add_space(last, in.size());
    }
    AlignedText rewritten = AlignedText::Rewrite(text);
    for (const Chunk& chunk : out) rewritten.AppendMapped(text, chunk.begin, chunk.end, chunk.text);
    text = std::move(rewritten);
  }

 private:
  // What the front of `in` becomes, and how much of it that is.
  std::string_view Prefix(std::string_view in, size_t& length) const {
    if (length = LongestKey(user_defined_, in); length > 0) return in.substr(0, length);
    if (map_.has_value()) {
      if (const auto replacement = map_->LongestMatch(in, length); replacement.has_value())
        return *replacement;
    }
    length = unicode::SequenceLength(static_cast<unsigned char>(in[0]));
    return in.substr(0, length);
  }

  const std::optional<CharsMap> map_;
  const DoubleArray user_defined_;
  const bool dummy_prefix_, suffix_, remove_extra_;
  const std::string_view space_;
};

// What BPE and Unigram have in common: the pieces, and what becomes of unknown characters.
class SentencePieceModel : public TokenModel {
 public:
  explicit SentencePieceModel(const Proto& proto) : byte_fallback_(proto.byte_fallback) {
    for (const Proto::Piece& piece : proto.pieces) {
      if (piece.type == Proto::kUnknown) unknown_ = static_cast<int32_t>(texts_.size());
      texts_.push_back(piece.text);
      types_.push_back(piece.type);
    }
    for (size_t id = 0; id < texts_.size(); ++id)
      ids_.emplace(texts_[id], static_cast<int32_t>(id));
    for (int byte = 0; byte < 256; ++byte)
      byte_ids_[byte] = TokenToId(absl::StrFormat("<0x%02X>", byte)).value_or(-1);
  }

  std::optional<int32_t> TokenToId(std::string_view token) const override {
    const auto it = ids_.find(token);
    return it == ids_.end() ? std::nullopt : std::optional(it->second);
  }
  const std::string* IdToToken(int32_t id) const override {
    return id >= 0 && id < token_count() ? &texts_[id] : nullptr;
  }
  int32_t token_count() const override { return static_cast<int32_t>(texts_.size()); }
  int32_t id_limit() const override { return token_count(); }
  absl::Status CheckUnknownToken() const override { return absl::OkStatus(); }

 protected:
  // Whether pieces of text can be this one.
  bool IsNormal(int32_t id) const {
    return types_[id] == Proto::kNormal || types_[id] == Proto::kUserDefined;
  }
  static void Add(int32_t id, size_t length, std::vector<int32_t>& ids,
                  std::vector<uint32_t>* lengths) {
    ids.push_back(id);
    if (lengths != nullptr) lengths->push_back(static_cast<uint32_t>(length));
  }
  // An unknown piece: its bytes, or the unknown piece, one for several side by side.
  void AddUnknown(std::string_view text, bool& after_unknown, std::vector<int32_t>& ids,
                  std::vector<uint32_t>* lengths) const {
    if (byte_fallback_) {
      for (const char c : text) Add(byte_ids_[static_cast<unsigned char>(c)], 1, ids, lengths);
    } else if (after_unknown) {
      if (lengths != nullptr) lengths->back() += static_cast<uint32_t>(text.size());
    } else {
      Add(unknown_, text.size(), ids, lengths);
      after_unknown = true;
    }
  }

  std::vector<std::string> texts_;                      // by id
  std::vector<int> types_;                              // by id
  absl::flat_hash_map<std::string_view, int32_t> ids_;  // views of texts_
  const bool byte_fallback_;
  int32_t unknown_ = -1;
  int32_t byte_ids_[256];
};

// Merges the neighbours that together are the piece of the highest score, of equal ones the
// leftmost. User-defined pieces are never merged.
class SentencePieceBpe : public SentencePieceModel {
 public:
  explicit SentencePieceBpe(const Proto& proto)
      : SentencePieceModel(proto), user_defined_(UserDefinedPieces(proto)) {
    // Symbols on the way are pieces and single characters; those without a piece get ids behind.
    symbols_ = ids_;
    for (int32_t id = 0; id < token_count(); ++id) {
      if (!IsNormal(id)) symbols_.erase(texts_[id]);
    }
    std::set<float, std::greater<>> scores;
    for (int32_t id = 0; id < token_count(); ++id) {
      if (!IsNormal(id)) continue;
      scores.insert(proto.pieces[id].score);
      const std::string_view text = texts_[id];
      for (size_t at = 0; at < text.size();) {
        const size_t length = unicode::SequenceLength(static_cast<unsigned char>(text[at]));
        symbols_.try_emplace(text.substr(at, length),
                             token_count() + static_cast<int32_t>(symbols_.size()));
        at += length;
      }
    }
    absl::flat_hash_map<float, uint32_t> ranks;
    for (const float score : scores) ranks.emplace(score, static_cast<uint32_t>(ranks.size()));
    struct Rule {
      int32_t left, right;
      PairTable::Merge merge;
    };
    std::vector<Rule> rules;
    for (int32_t id = 0; id < token_count(); ++id) {
      if (!IsNormal(id)) continue;
      const std::string_view text = texts_[id];
      size_t at = unicode::SequenceLength(static_cast<unsigned char>(text[0]));
      for (size_t before = 0; at < text.size();) {
        const auto left = symbols_.find(text.substr(0, at)), right = symbols_.find(text.substr(at));
        if (left != symbols_.end() && right != symbols_.end()) {
          rules.push_back({left->second, right->second, {ranks[proto.pieces[id].score], id}});
          size_t next = at;
          const char32_t last = unicode::DecodeUtf8(text, before);
          joints_.Add(last, unicode::DecodeUtf8(text, next));
        }
        before = at;
        at += unicode::SequenceLength(static_cast<unsigned char>(text[at]));
      }
    }
    pairs_.Reset(rules.size());
    for (const Rule& rule : rules) pairs_.Insert(rule.left, rule.right, rule.merge);
  }

 protected:
  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids,
                    std::vector<uint32_t>* lengths) const override {
    // User-defined pieces and what no merge joins cut the text into parts that come again.
    bool after_unknown = false;
    size_t begin = 0;
    const auto flush = [&](size_t end) {
      const std::string_view part = word.substr(begin, end - begin);
      begin = end;
      if (!part.empty()) TokenizePart(part, after_unknown, ids, lengths);
    };
    char32_t left = 0;
    for (size_t i = 0; i < word.size();) {
      if (const size_t length = LongestKey(user_defined_, word.substr(i)); length > 0) {
        flush(i);
        Add(symbols_.find(word.substr(i, length))->second, length, ids, lengths);
        after_unknown = false;
        begin = i += length;
        left = 0;
        continue;
      }
      const size_t at = i;
      const char32_t right = unicode::DecodeUtf8(word, i);
      if (!joints_.MayJoin(left, right)) flush(at);
      left = right;
    }
    flush(word.size());
  }

 private:
  void TokenizePart(std::string_view part, bool& after_unknown, std::vector<int32_t>& ids,
                    std::vector<uint32_t>* lengths) const {
    if (lengths != nullptr) return Merge(part, after_unknown, ids, lengths);
    const size_t before = ids.size();
    bool unknown_in_part = false;  // what is kept must not depend on what came before
    Cached(part_serial_, part, ids, [&] { Merge(part, unknown_in_part, ids, nullptr); });
    if (ids.size() == before) return;
    const bool ends_unknown = !byte_fallback_ && ids.back() == unknown_;
    if (after_unknown && ids[before] == unknown_) ids.erase(ids.begin() + before);
    after_unknown = ends_unknown;
  }

  void Merge(std::string_view part, bool& after_unknown, std::vector<int32_t>& ids,
             std::vector<uint32_t>* lengths) const {
    thread_local std::vector<BpeSymbol> symbols;
    symbols.clear();
    for (size_t i = 0; i < part.size();) {
      const size_t length = unicode::SequenceLength(static_cast<unsigned char>(part[i]));
      const auto it = symbols_.find(part.substr(i, length));
      symbols.push_back(
          {it == symbols_.end() ? kNoSymbol : it->second, static_cast<uint32_t>(length)});
      i += length;
    }
    MergeSymbols(pairs_, symbols);
    size_t at = 0;
    for (const BpeSymbol& symbol : symbols) {
      if (symbol.id >= 0 && symbol.id < token_count()) {
        Add(symbol.id, symbol.length, ids, lengths);
        after_unknown = false;
      } else {
        AddUnknown(part.substr(at, symbol.length), after_unknown, ids, lengths);
      }
      at += symbol.length;
    }
    // One enormous part must not keep its memory for the rest of the thread's life.
    if (symbols.capacity() > (1 << 16)) std::vector<BpeSymbol>().swap(symbols);
  }

  static constexpr int32_t kNoSymbol = -1;
  absl::flat_hash_map<std::string_view, int32_t> symbols_;  // views of texts_
  const DoubleArray user_defined_;
  PairTable pairs_;
  JointTable joints_;
  const uint32_t part_serial_ = NewSerial();
};

// Of all ways to cut the text the one with the highest sum of scores, in the library's precision
// and order, for among ways of equal score the rounding decides.
class SentencePieceUnigram : public SentencePieceModel {
 public:
  explicit SentencePieceUnigram(const Proto& proto) : SentencePieceModel(proto) {
    float least = std::numeric_limits<float>::max();
    std::vector<std::pair<std::string_view, int32_t>> keys;
    for (int32_t id = 0; id < token_count(); ++id) {
      scores_.push_back(proto.pieces[id].score);
      if (types_[id] == Proto::kNormal) least = std::min(least, scores_[id]);
      if (!IsNormal(id)) continue;
      keys.emplace_back(texts_[id], id);
      // A bonus, so that it is always chosen.
      if (types_[id] == Proto::kUserDefined)
        scores_[id] = static_cast<float>(0.1 * (static_cast<double>(texts_[id].size()) - 1));
    }
    trie_.Build(std::move(keys));
    unknown_score_ = least - 10.0f;
  }

 protected:
  void TokenizeWord(std::string_view word, std::vector<int32_t>& ids,
                    std::vector<uint32_t>* lengths) const override {
    constexpr float kResetAt = 100000.0f;  // the library's
    thread_local std::vector<BestCut<float>> best;
    FindBestCuts(word, trie_, scores_, unknown_, unknown_score_, kResetAt, &best);
    thread_local std::vector<uint32_t> ends;
    ends.clear();
    for (auto end = static_cast<uint32_t>(word.size()); end > 0; end = best[end].begin)
      ends.push_back(end);
    bool after_unknown = false;
    for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
      const BestCut<float>& last = best[*end];
      if (last.id == unknown_) {
        AddUnknown(word.substr(last.begin, *end - last.begin), after_unknown, ids, lengths);
      } else {
        Add(last.id, *end - last.begin, ids, lengths);
        after_unknown = false;
      }
    }
    // One enormous word must not keep its memory for the rest of the thread's life.
    if (best.capacity() > (1 << 16)) std::vector<BestCut<float>>().swap(best);
  }

 private:
  std::vector<float> scores_;  // by id
  DoubleArray trie_;
  float unknown_score_ = 0;
};

// Pieces to text: bytes joined, the space symbol a blank, the first one gone where one was put in.
class SentencePieceDecoder : public Decoder {
 public:
  explicit SentencePieceDecoder(const Proto& proto)
      : unk_surface_(proto.unk_surface),
        drops_first_(proto.add_dummy_prefix || proto.remove_extra_whitespaces),
        drops_all_first_(proto.remove_extra_whitespaces) {
    for (const Proto::Piece& piece : proto.pieces) {
      if (piece.type == Proto::kControl || piece.type == Proto::kUnknown)
        types_.emplace(piece.text, piece.type);
    }
    for (int byte = 0; proto.byte_fallback && byte < 256; ++byte)
      bytes_.emplace(absl::StrFormat("<0x%02X>", byte), static_cast<char>(byte));
  }

  std::vector<std::string> Apply(std::vector<std::string> tokens) const override {
    std::string text, bytes;
    bool at_start = true;
    const auto flush = [&] {
      while (!bytes.empty()) {
        // Each byte that belongs to no character becomes one U+FFFD.
        const size_t valid = unicode::ValidUtf8Prefix(bytes);
        text.append(bytes, 0, valid);
        if (valid < bytes.size()) text.append("\uFFFD");
        bytes.erase(0, valid + 1);
      }
    };
    for (const std::string& token : tokens) {
      if (const auto byte = bytes_.find(token); byte != bytes_.end()) {
        bytes.push_back(byte->second);
        continue;
      }
      flush();
      at_start &= text.empty();
      const auto type = types_.find(token);
      if (type != types_.end()) {
        if (type->second == Proto::kUnknown) text += unk_surface_;
        continue;
      }
      std::string_view piece = token;
      if (at_start && drops_first_ && piece.starts_with(kSpaceSymbol)) {
        piece.remove_prefix(kSpaceSymbol.size());
        at_start = drops_all_first_;
      }
      while (!piece.empty()) {
        const size_t plain = std::min(piece.find(kSpaceSymbol), piece.size());
        text.append(piece.substr(0, plain));
        piece.remove_prefix(plain);
        if (piece.empty()) break;
        text.push_back(' ');
        piece.remove_prefix(kSpaceSymbol.size());
      }
    }
    flush();
    return {text};
  }

 private:
  absl::flat_hash_map<std::string, int> types_;   // of control and unknown pieces
  absl::flat_hash_map<std::string, char> bytes_;  // of byte pieces
  const std::string unk_surface_;
  const bool drops_first_, drops_all_first_;
};

absl::Status Check(const Proto& proto) {
  if (proto.model_type != Proto::kUnigram && proto.model_type != Proto::kBpe) {
    return absl::UnimplementedError(
        absl::StrCat("is a SentencePiece model of type ", proto.model_type,
                     " (3 word, 4 char), which is not built; supported: unigram, bpe"));
  }
  if (proto.has_denormalizer)
    return absl::UnimplementedError("has a denormalizer, which is not built");
  std::set<std::string_view> texts;
  int unknown = 0, bytes = 0;
  for (size_t id = 0; id < proto.pieces.size(); ++id) {
    const Proto::Piece& piece = proto.pieces[id];
    if (piece.text.empty() || unicode::ValidUtf8Prefix(piece.text) != piece.text.size())
      return absl::InvalidArgumentError(absl::StrCat("piece ", id, " is empty or not UTF-8"));
    if (!texts.insert(piece.text).second)
      return absl::InvalidArgumentError(
          absl::StrCat("piece ", id, " ('", piece.text, "') is there twice"));
    if (!std::isfinite(piece.score))
      return absl::InvalidArgumentError(absl::StrCat("piece ", id, " has no finite score"));
    if (proto.model_type == Proto::kBpe && piece.type == Proto::kUnused)
      return absl::UnimplementedError(
          absl::StrCat("piece ", id, " of a BPE is unused, which is not built"));
    unknown += piece.type == Proto::kUnknown;
    bytes += piece.type == Proto::kByte && piece.text.size() == 6;
  }
  if (unknown != 1)
    return absl::InvalidArgumentError(
        absl::StrCat("has ", unknown, " unknown pieces; it must have one"));
  for (int byte = 0; proto.byte_fallback && byte < 256; ++byte) {
    if (!texts.contains(absl::StrFormat("<0x%02X>", byte))) {
      return absl::InvalidArgumentError(
          absl::StrFormat("lacks the piece <0x%02X> although byte_fallback is on", byte));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerParts> MakeSentencePiece(const SentencePieceProto& proto) {
  FT_RETURN_IF_ERROR(Check(proto));
  TokenizerParts parts;
  std::optional<CharsMap> map;
  if (!proto.charsmap.empty()) {
    absl::StatusOr<CharsMap> read = CharsMap::Parse(proto.charsmap);
    if (!read.ok())
      return absl::InvalidArgumentError(
          absl::StrCat("precompiled_charsmap ", read.status().message()));
    map = *std::move(read);
  }
  parts.normalizer = std::make_unique<SentencePieceNormalizer>(proto, std::move(map));
  if (proto.model_type == Proto::kBpe) {
    parts.model = std::make_unique<SentencePieceBpe>(proto);
  } else {
    parts.model = std::make_unique<SentencePieceUnigram>(proto);
  }
  for (size_t id = 0; id < proto.pieces.size(); ++id) {
    if (proto.pieces[id].type != Proto::kControl) continue;
    AddedToken token{};
    token.id = static_cast<int32_t>(id);
    token.content = proto.pieces[id].text;
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  parts.decoder = std::make_unique<SentencePieceDecoder>(proto);
  return parts;
}

absl::StatusOr<TokenizerParts> ReadSentencePiece(std::string_view bytes) {
  FT_ASSIGN_OR_RETURN(const SentencePieceProto proto, ParseSentencePieceProto(bytes));
  return MakeSentencePiece(proto);
}

}  // namespace finetuned
