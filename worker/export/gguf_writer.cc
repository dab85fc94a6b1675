#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "worker/export/gguf_file.h"

namespace finetuned {
namespace {

constexpr int64_t kAlignment = 32;

template <typename T>
void Put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
void Put(std::string& out, const std::string& text) {
  Put(out, static_cast<uint64_t>(text.size()));
  out.append(text);
}
template <typename T>
void Put(std::string& out, const std::vector<T>& list) {
  Put(out, static_cast<uint64_t>(list.size()));
  for (const T& element : list) Put(out, element);
}
void Put(std::string&, std::monostate) {}
void Put(std::string& out, const GgufArray& array) {
  Put(out, static_cast<uint32_t>(array.index()));
  std::visit([&out](const auto& list) { Put(out, list); }, array);
}

absl::Status CheckTensor(const GgufTensorInfo& tensor) {
  const auto fail = [&tensor](std::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat("GGUF tensor '", tensor.name, "': ", std::string(what)));
  };
  if (tensor.name.empty() || tensor.name.size() > 63)
    return fail("its name must have 1 to 63 bytes");
  if (tensor.shape.empty() || tensor.shape.size() > 4) return fail("it must have 1 to 4 extents");
  for (const int64_t extent : tensor.shape) {
    if (extent < 1) return fail("it has an extent below 1");
  }
  if (tensor.shape.back() % GgufBlockElements(tensor.type) != 0) {
    return fail(absl::StrCat(
        "rows of ", tensor.shape.back(), " elements do not divide into the blocks of ",
        GgufBlockElements(tensor.type), " that ", GgufTypeName(tensor.type), " needs"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t GgufTensorInfo::elements() const {
  int64_t product = 1;
  for (const int64_t extent : shape) product *= extent;
  return product;
}

GgufWriter::GgufWriter(std::string path, std::vector<GgufTensorInfo> tensors)
    : path_(std::move(path)),
      temporary_(absl::StrCat(path_, ".tmp.", getpid())),
      tensors_(std::move(tensors)) {}

GgufWriter::~GgufWriter() {
  if (fd_ < 0) return;
  close(fd_);
  unlink(temporary_.c_str());
}

absl::StatusOr<std::unique_ptr<GgufWriter>> GgufWriter::Create(
    const std::string& path, const GgufKeys& keys, std::vector<GgufTensorInfo> tensors) {
  std::string header = "GGUF";
  Put(header, uint32_t{3});
  Put(header, static_cast<uint64_t>(tensors.size()));
  Put(header, static_cast<uint64_t>(keys.size()));
  absl::flat_hash_set<std::string> names;
  for (const auto& [name, value] : keys) {
    if (!names.insert(name).second)
      return absl::InvalidArgumentError(absl::StrCat("GGUF key '", name, "' is given twice"));
    Put(header, name);
    Put(header, static_cast<uint32_t>(value.index()));
    std::visit([&header](const auto& content) { Put(header, content); }, value);
  }
  names.clear();
  int64_t offset = 0;
  for (const GgufTensorInfo& tensor : tensors) {
    FT_RETURN_IF_ERROR(CheckTensor(tensor));
    if (!names.insert(tensor.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("GGUF tensor '", tensor.name, "' is given twice"));
    }
    Put(header, tensor.name);
    Put(header, static_cast<uint32_t>(tensor.shape.size()));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent)
      Put(header, static_cast<uint64_t>(*extent));
    Put(header, GgmlTypeId(tensor.type));
    Put(header, static_cast<uint64_t>(offset));
    offset += (tensor.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  }

  auto writer = std::unique_ptr<GgufWriter>(new GgufWriter(path, std::move(tensors)));
  writer->fd_ = open(writer->temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (writer->fd_ < 0)
    return ErrnoStatus(errno, absl::StrCat("cannot create ", writer->temporary_));
  FT_RETURN_IF_ERROR(writer->WriteRaw(header));
  FT_RETURN_IF_ERROR(writer->Pad());
  return writer;
}

absl::Status GgufWriter::WriteRaw(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd_, bytes.data(), std::min<size_t>(bytes.size(), 1 << 28));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, absl::StrCat("cannot write ", temporary_));
    bytes.remove_prefix(static_cast<size_t>(written));
    bytes_written_ += written;
  }
  return absl::OkStatus();
}

absl::Status GgufWriter::Pad() {
  constexpr char kZeros[kAlignment] = {};
  return WriteRaw(
      {kZeros, static_cast<size_t>((kAlignment - bytes_written_ % kAlignment) % kAlignment)});
}

absl::Status GgufWriter::Write(std::string_view encoded) {
  const int64_t left = current_ < tensors_.size() ? tensors_[current_].bytes() - in_current_ : 0;
  if (static_cast<int64_t>(encoded.size()) > left) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", encoded.size(), " bytes written where ", left,
                     " are left of tensor ", current_, " of ", tensors_.size()));
  }
  FT_RETURN_IF_ERROR(WriteRaw(encoded));
  in_current_ += static_cast<int64_t>(encoded.size());
  if (in_current_ < tensors_[current_].bytes()) return absl::OkStatus();
  ++current_;
  in_current_ = 0;
  return Pad();
}

absl::Status GgufWriter::Finish() {
  if (current_ < tensors_.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": tensor '", tensors_[current_].name, "' was not written whole"));
  }
  if (fsync(fd_) != 0) return ErrnoStatus(errno, absl::StrCat("cannot sync ", temporary_));
  FT_RETURN_IF_ERROR(RenameDurable(temporary_, path_));
  close(std::exchange(fd_, -1));
  return absl::OkStatus();
}

}  // namespace finetuned
