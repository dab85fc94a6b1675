#include "worker/data/token_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace {

static_assert(std::endian::native == std::endian::little,
              "token files are little-endian and mapped as they are");

constexpr uint64_t kMagic = 0x314E454B4F544654;  // "TFTOKEN1"
constexpr uint32_t kVersion = 1;
constexpr uint32_t kBlockBytes = 1 << 20;
constexpr size_t kFlushBytes = 1 << 20;

struct Header {
  uint64_t magic = kMagic;
  uint32_t version = kVersion;
  uint32_t block_bytes = kBlockBytes;
  uint64_t samples = 0;
  uint64_t index_offset = 0;
  uint64_t checksum_offset = 0;
  uint64_t file_bytes = 0;
  uint64_t reserved = 0;
  uint32_t reserved2 = 0;
  uint32_t crc = 0;  // of everything before it
};
static_assert(sizeof(Header) == 64);

uint32_t Crc(uint32_t crc, const void* data, size_t size) {
  return static_cast<uint32_t>(crc32_z(crc, static_cast<const Bytef*>(data), size));
}
uint32_t HeaderCrc(const Header& header) { return Crc(0, &header, offsetof(Header, crc)); }

class IndexedStore : public TokenStore {
 public:
  IndexedStore(std::shared_ptr<const TokenFile> file, std::vector<uint32_t> order)
      : file_(std::move(file)), order_(std::move(order)) {
    for (const uint32_t i : order_) {
      total_ += file_->index()[i].tokens;
      trained_ += file_->index()[i].trained;
    }
  }
  size_t size() const override { return order_.size(); }
  SampleView Sample(size_t index) const override { return file_->Sample(order_[index]); }
  int64_t total_tokens() const override { return total_; }
  int64_t trained_tokens() const override { return trained_; }

 private:
  const std::shared_ptr<const TokenFile> file_;
  const std::vector<uint32_t> order_;
  int64_t total_ = 0, trained_ = 0;
};

}  // namespace

TokenFileWriter::TokenFileWriter(int fd, std::string path) : fd_(fd), path_(std::move(path)) {
  buffer_.assign(sizeof(Header), '\0');  // the real one is written last
  written_ = sizeof(Header);
}

TokenFileWriter::~TokenFileWriter() { close(fd_); }

absl::StatusOr<std::unique_ptr<TokenFileWriter>> TokenFileWriter::Create(const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("creating ", path));
  return std::unique_ptr<TokenFileWriter>(new TokenFileWriter(fd, path));
}

absl::Status TokenFileWriter::Flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t count = write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, absl::StrCat("writing ", path_));
    done += static_cast<size_t>(count);
  }
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status TokenFileWriter::Write(const void* data, size_t size) {
  const char* bytes = static_cast<const char*>(data);
  buffer_.append(bytes, size);
  written_ += size;
  while (size > 0) {
    const size_t part = std::min<uint64_t>(size, kBlockBytes - block_filled_);
    block_crc_ = Crc(block_crc_, bytes, part);
    block_filled_ += part;
    bytes += part;
    size -= part;
    if (block_filled_ == kBlockBytes) {
      block_crcs_.push_back(block_crc_);
      block_crc_ = 0;
      block_filled_ = 0;
    }
  }
  return buffer_.size() >= kFlushBytes ? Flush() : absl::OkStatus();
}

absl::Status TokenFileWriter::Append(absl::Span<const int32_t> ids,
                                     absl::Span<const uint8_t> trained, std::string_view sample_id,
                                     uint32_t response_tokens) {
  TokenIndexEntry entry;
  entry.offset = written_;
  entry.tokens = static_cast<uint32_t>(ids.size());
  entry.trained = static_cast<uint32_t>(std::count(trained.begin(), trained.end(), 1));
  entry.response = response_tokens;
  entry.id_bytes = static_cast<uint32_t>(sample_id.size());
  const uint64_t count = ids.size();
  content_.Update(&count, sizeof count);
  content_.Update(ids.data(), ids.size() * sizeof(int32_t));
  content_.Update(trained.data(), trained.size());
  FT_RETURN_IF_ERROR(Write(ids.data(), ids.size() * sizeof(int32_t)));
  FT_RETURN_IF_ERROR(Write(trained.data(), trained.size()));
  FT_RETURN_IF_ERROR(Write(sample_id.data(), sample_id.size()));
  index_.push_back(entry);
  static constexpr char kPadding[8] = {};
  return Write(kPadding, (8 - written_ % 8) % 8);
}

absl::Status TokenFileWriter::Finish() {
  Header header;
  header.samples = index_.size();
  header.index_offset = written_;
  FT_RETURN_IF_ERROR(Write(index_.data(), index_.size() * sizeof(TokenIndexEntry)));
  if (block_filled_ > 0) block_crcs_.push_back(block_crc_);
  header.checksum_offset = written_;
  header.file_bytes = written_ + block_crcs_.size() * sizeof(uint32_t);
  header.crc = HeaderCrc(header);
  buffer_.append(reinterpret_cast<const char*>(block_crcs_.data()),
                 block_crcs_.size() * sizeof(uint32_t));
  FT_RETURN_IF_ERROR(Flush());
  if (pwrite(fd_, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header) ||
      fsync(fd_) != 0) {
    return ErrnoStatus(errno, absl::StrCat("finishing ", path_));
  }
  content_sha256_ = content_.Finish();
  return absl::OkStatus();
}

TokenFile::~TokenFile() { munmap(const_cast<char*>(data_), size_); }

absl::StatusOr<std::shared_ptr<const TokenFile>> TokenFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("opening ", path));
  struct stat info {};
  void* map = MAP_FAILED;
  const bool big_enough =
      fstat(fd, &info) == 0 && info.st_size >= static_cast<off_t>(sizeof(Header));
  if (big_enough) map = mmap(nullptr, info.st_size, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (!big_enough) return absl::DataLossError(absl::StrCat(path, ": shorter than a header"));
  if (map == MAP_FAILED) return ErrnoStatus(errno, absl::StrCat("mapping ", path));
  std::shared_ptr<TokenFile> file(new TokenFile(static_cast<const char*>(map), info.st_size));

  Header header;
  std::memcpy(&header, file->data_, sizeof header);
  const uint64_t size = file->size_;
  if (header.magic != kMagic || header.version != kVersion || header.block_bytes != kBlockBytes ||
      header.crc != HeaderCrc(header)) {
    return absl::DataLossError(absl::StrCat(path, ": damaged header"));
  }
  const uint64_t body = header.checksum_offset - sizeof(Header);
  const uint64_t blocks = (body + kBlockBytes - 1) / kBlockBytes;
  if (header.file_bytes != size || header.checksum_offset < sizeof(Header) ||
      header.checksum_offset > size || header.index_offset < sizeof(Header) ||
      header.index_offset % 8 != 0 || header.index_offset > header.checksum_offset ||
      (header.checksum_offset - header.index_offset) / sizeof(TokenIndexEntry) != header.samples ||
      size - header.checksum_offset != blocks * sizeof(uint32_t)) {
    return absl::DataLossError(absl::StrCat(path, ": sizes do not add up (", size,
                                            " bytes, header says ", header.file_bytes, ")"));
  }
  for (uint64_t block = 0; block < blocks; ++block) {
    const uint64_t begin = sizeof(Header) + block * kBlockBytes;
    const uint64_t length = std::min<uint64_t>(kBlockBytes, header.checksum_offset - begin);
    uint32_t expected;
    std::memcpy(&expected, file->data_ + header.checksum_offset + block * sizeof expected,
                sizeof expected);
    if (Crc(0, file->data_ + begin, length) != expected) {
      return absl::DataLossError(
          absl::StrCat(path, ": block ", block, " of ", blocks, " is damaged"));
    }
  }
  file->index_ = {reinterpret_cast<const TokenIndexEntry*>(file->data_ + header.index_offset),
                  header.samples};
  for (const TokenIndexEntry& entry : file->index_) {
    const uint64_t bytes = uint64_t{entry.tokens} * 5 + entry.id_bytes;
    if (entry.offset % 4 != 0 || entry.offset < sizeof(Header) ||
        entry.offset > header.index_offset || bytes > header.index_offset - entry.offset) {
      return absl::DataLossError(absl::StrCat(path, ": damaged index"));
    }
  }
  return file;
}

SampleView TokenFile::Sample(size_t index) const {
  const TokenIndexEntry& entry = index_[index];
  const char* begin = data_ + entry.offset;
  const char* trained = begin + size_t{entry.tokens} * sizeof(int32_t);
  return {.input_ids = {reinterpret_cast<const int32_t*>(begin), entry.tokens},
          .trained = {reinterpret_cast<const uint8_t*>(trained), entry.tokens},
          .sample_id = std::string_view(trained + entry.tokens, entry.id_bytes)};
}

std::shared_ptr<const TokenStore> MakeTokenStore(std::shared_ptr<const TokenFile> file,
                                                 std::vector<uint32_t> order) {
  return std::make_shared<IndexedStore>(std::move(file), std::move(order));
}

}  // namespace finetuned
