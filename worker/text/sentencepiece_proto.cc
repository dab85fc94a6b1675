// Reads ModelProto in protobuf's wire format; the few fields do not warrant the library.
#include <cstring>
#include <optional>

#include "absl/status/status.h"
#include "worker/text/sentencepiece.h"

namespace finetuned {
namespace {

// The fields of one message, front to back.
class WireReader {
 public:
  explicit WireReader(std::string_view bytes) : rest_(bytes) {}

  // Moves to the next field; false at the end or when the bytes are damaged (see ok()).
  bool Next() {
    if (rest_.empty() || !ok_) return false;
    const uint64_t tag = Varint();
    field_ = static_cast<uint32_t>(tag >> 3);
    number_ = 0;
    bytes_ = {};
    switch (tag & 7) {
      case 0:
        number_ = Varint();
        break;
      case 1:
        bytes_ = Take(8);
        break;
      case 2:
        bytes_ = Take(Varint());
        break;
      case 5:
        bytes_ = Take(4);
        break;
      default:
        ok_ = false;
    }
    return ok_ && field_ != 0;
  }
  bool ok() const { return ok_ && (rest_.empty() || field_ != 0); }
  uint32_t field() const { return field_; }
  bool flag() const { return number_ != 0; }
  int number() const { return static_cast<int>(number_); }
  std::string_view bytes() const { return bytes_; }
  float real() const {
    float value = 0;
    if (bytes_.size() == sizeof value) std::memcpy(&value, bytes_.data(), sizeof value);
    return value;
  }

 private:
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) break;
      const auto byte = static_cast<unsigned char>(rest_[0]);
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    ok_ = false;
    return 0;
  }
  std::string_view Take(uint64_t size) {
    if (size > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_, bytes_;
  uint64_t number_ = 0;
  uint32_t field_ = 1;
  bool ok_ = true;
};

bool ReadPiece(std::string_view bytes, SentencePieceProto::Piece& piece) {
  WireReader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 1) piece.text = std::string(reader.bytes());
    if (reader.field() == 2) piece.score = reader.real();
    if (reader.field() == 3) piece.type = reader.number();
  }
  return reader.ok();
}

bool ReadTrainer(std::string_view bytes, SentencePieceProto& proto) {
  WireReader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 3) proto.model_type = reader.number();
    if (reader.field() == 24) proto.treat_whitespace_as_suffix = reader.flag();
    if (reader.field() == 35) proto.byte_fallback = reader.flag();
    if (reader.field() == 44) proto.unk_surface = std::string(reader.bytes());
  }
  return reader.ok();
}

bool ReadNormalizer(std::string_view bytes, SentencePieceProto& proto) {
  WireReader reader(bytes);
  while (reader.Next()) {
    if (reader.field() == 2) proto.charsmap = std::string(reader.bytes());
    if (reader.field() == 3) proto.add_dummy_prefix = reader.flag();
    if (reader.field() == 4) proto.remove_extra_whitespaces = reader.flag();
    if (reader.field() == 5) proto.escape_whitespaces = reader.flag();
  }
  return reader.ok();
}

bool ReadDenormalizer(std::string_view bytes, SentencePieceProto& proto) {
  WireReader reader(bytes);
  while (reader.Next()) proto.has_denormalizer |= reader.field() == 2 && !reader.bytes().empty();
  return reader.ok();
}

}  // namespace

absl::StatusOr<SentencePieceProto> ParseSentencePieceProto(std::string_view bytes) {
  SentencePieceProto proto;
  WireReader reader(bytes);
  bool ok = true;
  while (ok && reader.Next()) {
    if (reader.field() == 1) {
      ok = ReadPiece(reader.bytes(), proto.pieces.emplace_back());
    } else if (reader.field() == 2) {
      ok = ReadTrainer(reader.bytes(), proto);
    } else if (reader.field() == 3) {
      ok = ReadNormalizer(reader.bytes(), proto);
    } else if (reader.field() == 5) {
      ok = ReadDenormalizer(reader.bytes(), proto);
    }
  }
  if (!ok || !reader.ok() || proto.pieces.empty()) {
    return absl::InvalidArgumentError(
        "is no tokenizer file: neither tokenizer.json, tekken.json, a tiktoken rank file nor a "
        "SentencePiece model");
  }
  return proto;
}

}  // namespace finetuned
