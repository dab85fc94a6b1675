#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "worker/export/gguf_file.h"

namespace finetuned {
namespace {

constexpr int64_t kMaxHeaderBytes = int64_t{256} << 20;

absl::Status ReadExactly(int fd, const std::string& path, int64_t position, size_t size,
                         char* out) {
  while (size > 0) {
    const ssize_t got = pread(fd, out, std::min<size_t>(size, 1 << 28), position);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, absl::StrCat("cannot read ", path));
    if (got == 0)
      return absl::DataLossError(
          absl::StrCat(path, ": ends at byte ", position, ", in the middle of its contents"));
    out += got;
    position += got;
    size -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

// Reads forward through the header in pieces. Lengths are compared with what is left of the file
// before anything is allocated, so that memory stays within a small multiple of the bytes there
// are.
class HeaderReader {
 public:
  HeaderReader(int fd, const std::string& path, int64_t file_bytes)
      : fd_(fd), path_(path), limit_(std::min(file_bytes, kMaxHeaderBytes)) {}

  int64_t position() const { return loaded_ - static_cast<int64_t>(buffer_.size() - next_); }

  absl::Status Error(std::string_view what) const {
    return absl::DataLossError(
        absl::StrCat(path_, ": ", std::string(what), " (at byte ", position(), ")"));
  }

  // `count` things of at least `least` bytes each still fit.
  absl::Status CheckRoom(uint64_t count, uint64_t least, std::string_view what) const {
    const auto left = static_cast<uint64_t>(limit_ - position());
    if (count <= left / least) return absl::OkStatus();
    return Error(absl::StrCat(count, " ", std::string(what), " cannot be in the ", left,
                              " bytes that are left for the header"));
  }

  absl::Status Take(void* out, size_t size) {
    FT_RETURN_IF_ERROR(CheckRoom(size, 1, "bytes"));
    auto* to = static_cast<char*>(out);
    while (size > 0) {
      if (next_ == buffer_.size()) FT_RETURN_IF_ERROR(Load());
      const size_t part = std::min(size, buffer_.size() - next_);
      memcpy(to, buffer_.data() + next_, part);
      next_ += part;
      to += part;
      size -= part;
    }
    return absl::OkStatus();
  }

  absl::Status Get(bool& value) {
    uint8_t byte = 0;
    FT_RETURN_IF_ERROR(Take(&byte, 1));
    if (byte > 1) return Error(absl::StrCat("a truth value is ", byte, "; 0 or 1 is possible"));
    value = byte == 1;
    return absl::OkStatus();
  }
  template <typename T>
  absl::Status Get(T& value) {
    return Take(&value, sizeof(value));
  }
  absl::Status Get(std::string& text) {
    uint64_t size = 0;
    FT_RETURN_IF_ERROR(Get(size));
    FT_RETURN_IF_ERROR(CheckRoom(size, 1, "characters"));
    text.resize(size);
    return Take(text.data(), size);
  }
  template <typename T>
  absl::Status Get(std::vector<T>& list) {
    uint64_t count = 0;
    FT_RETURN_IF_ERROR(Get(count));
    constexpr bool kText = std::is_same_v<T, std::string>;
    FT_RETURN_IF_ERROR(CheckRoom(count, kText ? sizeof(uint64_t) : sizeof(T), "elements"));
    for (uint64_t i = 0; i < count; ++i) {
      T element{};
      FT_RETURN_IF_ERROR(Get(element));
      list.push_back(std::move(element));
    }
    return absl::OkStatus();
  }
  absl::Status Get(std::monostate&) { return Error("a list of lists, which is not read"); }
  absl::Status Get(GgufArray& array) { return GetVariant(array); }
  // A type number, then a value of that type.
  template <typename Variant>
  absl::Status GetVariant(Variant& value) {
    uint32_t type = 0;
    FT_RETURN_IF_ERROR(Get(type));
    return GetAlternative(value, type, std::make_index_sequence<std::variant_size_v<Variant>>());
  }

 private:
  template <typename Variant, size_t... kIndices>
  absl::Status GetAlternative(Variant& value, uint32_t type, std::index_sequence<kIndices...>) {
    absl::Status status = Error(absl::StrCat("value type ", type, " does not exist; 0 to 12 do"));
    ((type == kIndices ? void(status = Get(value.template emplace<kIndices>())) : void()), ...);
    return status;
  }

  absl::Status Load() {
    const auto size = static_cast<size_t>(std::min<int64_t>(limit_ - loaded_, 1 << 20));
    buffer_.resize(size);
    next_ = 0;
    FT_RETURN_IF_ERROR(ReadExactly(fd_, path_, loaded_, size, buffer_.data()));
    loaded_ += static_cast<int64_t>(size);
    return absl::OkStatus();
  }

  const int fd_;
  const std::string& path_;
  const int64_t limit_;
  std::string buffer_;
  size_t next_ = 0;     // in buffer_
  int64_t loaded_ = 0;  // bytes of the file up to the end of buffer_
};

absl::Status ReadKeys(HeaderReader& in, uint64_t count, GgufKeys& keys) {
  FT_RETURN_IF_ERROR(in.CheckRoom(count, 13, "keys"));
  absl::flat_hash_set<std::string> names;
  for (uint64_t i = 0; i < count; ++i) {
    std::string name;
    FT_RETURN_IF_ERROR(in.Get(name));
    if (name.empty() || name.size() > 65535)
      return in.Error(absl::StrCat("key ", i, " has a name of ", name.size(), " bytes"));
    if (!names.insert(name).second)
      return in.Error(absl::StrCat("key '", name, "' is there twice"));
    GgufValue value;
    FT_RETURN_IF_ERROR(in.GetVariant(value));
    keys.emplace_back(std::move(name), std::move(value));
  }
  return absl::OkStatus();
}

absl::Status ReadTensorInfo(HeaderReader& in, GgufTensorInfo& tensor, uint64_t& offset) {
  FT_RETURN_IF_ERROR(in.Get(tensor.name));
  if (tensor.name.empty() || tensor.name.size() > 63) {
    return in.Error(absl::StrCat("a tensor has a name of ", tensor.name.size(),
                                 " bytes; 1 to 63 are possible"));
  }
  const auto fail = [&](std::string_view what) {
    return in.Error(absl::StrCat("tensor '", tensor.name, "' ", std::string(what)));
  };
  uint32_t rank = 0, type = 0;
  FT_RETURN_IF_ERROR(in.Get(rank));
  if (rank < 1 || rank > 4)
    return fail(absl::StrCat("has ", rank, " extents; 1 to 4 are possible"));
  int64_t elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    uint64_t extent = 0;
    FT_RETURN_IF_ERROR(in.Get(extent));
    // Four bytes an element must not overflow either.
    if (extent == 0 || extent > INT64_MAX / 8 / static_cast<uint64_t>(elements))
      return fail(absl::StrCat("has an impossible extent ", extent));
    elements *= static_cast<int64_t>(extent);
    tensor.shape.push_back(static_cast<int64_t>(extent));
  }
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  FT_RETURN_IF_ERROR(in.Get(type));
  const std::optional<GgufType> known = GgufTypeOfId(type);
  if (!known.has_value())
    return fail(absl::StrCat("has ggml type ", type,
                             "; read are 0 (F32), 1 (F16), 8 (Q8_0) and 30 (BF16)"));
  tensor.type = *known;
  if (tensor.shape.back() % GgufBlockElements(*known) != 0) {
    return fail(absl::StrCat("has rows of ", tensor.shape.back(), " elements, no multiple of ",
                             GgufTypeName(*known), "'s block"));
  }
  return in.Get(offset);
}

}  // namespace

GgufFile::~GgufFile() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  auto file = std::unique_ptr<GgufFile>(new GgufFile(path));
  file->fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file->fd_ < 0) return ErrnoStatus(errno, absl::StrCat("cannot open ", path));
  FT_RETURN_IF_ERROR(file->ReadHeader());
  return file;
}

absl::Status GgufFile::ReadHeader() {
  struct stat info;
  if (fstat(fd_, &info) != 0) return ErrnoStatus(errno, absl::StrCat("cannot look at ", path_));
  if (!S_ISREG(info.st_mode))
    return absl::InvalidArgumentError(absl::StrCat(path_, " is not a regular file"));
  HeaderReader in(fd_, path_, info.st_size);
  char magic[4];
  uint32_t version = 0;
  uint64_t tensor_count = 0, key_count = 0;
  FT_RETURN_IF_ERROR(in.Take(magic, 4));
  if (memcmp(magic, "GGUF", 4) != 0)
    return in.Error("is no GGUF file: it does not begin with those letters");
  FT_RETURN_IF_ERROR(in.Get(version));
  if (version != 3)
    return in.Error(absl::StrCat("has GGUF version ", version, "; 3, little-endian, is read"));
  FT_RETURN_IF_ERROR(in.Get(tensor_count));
  FT_RETURN_IF_ERROR(in.Get(key_count));
  FT_RETURN_IF_ERROR(ReadKeys(in, key_count, keys_));
  int64_t alignment = 32;
  for (const auto& [name, value] : keys_) {
    if (name != "general.alignment") continue;
    const auto* given = std::get_if<uint32_t>(&value);
    if (given == nullptr || *given < 8 || *given > 1 << 20 || (*given & (*given - 1)) != 0) {
      return in.Error(
          "general.alignment must be a power of two from 8 to 1048576, as a 32-bit number");
    }
    alignment = *given;
  }
  const auto aligned = [alignment](int64_t bytes) {
    return (bytes + alignment - 1) / alignment * alignment;
  };

  FT_RETURN_IF_ERROR(in.CheckRoom(tensor_count, 33, "tensors"));
  absl::flat_hash_set<std::string> names;
  int64_t data_bytes = 0;  // of the tensors so far, padded
  int64_t last_end = 0;    // the same without the padding of the last one
  for (uint64_t i = 0; i < tensor_count; ++i) {
    GgufTensorInfo tensor;
    uint64_t offset = 0;
    FT_RETURN_IF_ERROR(ReadTensorInfo(in, tensor, offset));
    if (!names.insert(tensor.name).second)
      return in.Error(absl::StrCat("tensor '", tensor.name, "' is there twice"));
    if (offset != static_cast<uint64_t>(data_bytes)) {
      return in.Error(absl::StrCat("tensor '", tensor.name, "' claims offset ", offset,
                                   " where the one before ends at ", data_bytes));
    }
    if (tensor.bytes() > info.st_size - data_bytes) {
      return in.Error(absl::StrCat("truncated: tensor '", tensor.name, "' needs ", tensor.bytes(),
                                   " bytes from offset ", offset, ", the file has ", info.st_size));
    }
    positions_.push_back(data_bytes);
    last_end = data_bytes + tensor.bytes();
    data_bytes = aligned(last_end);
    tensors_.push_back(std::move(tensor));
  }
  const int64_t data_begin = aligned(in.position());
  for (int64_t& position : positions_) position += data_begin;
  // Some writers pad the last tensor, some do not.
  if (info.st_size != data_begin + data_bytes && info.st_size != data_begin + last_end) {
    return in.Error(absl::StrCat(info.st_size < data_begin + last_end ? "truncated: has " : "has ",
                                 info.st_size, " bytes where its header and tensors take ",
                                 data_begin + last_end));
  }
  return absl::OkStatus();
}

absl::Status GgufFile::Read(size_t index, int64_t begin, size_t size, char* out) const {
  return ReadExactly(fd_, path_, positions_[index] + begin, size, out);
}

}  // namespace finetuned
