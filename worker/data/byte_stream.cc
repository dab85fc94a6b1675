#include "worker/data/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace {

constexpr size_t kBufferBytes = 256 << 10;

class PlainStream : public ByteStream {
 public:
  PlainStream(int fd, std::string path, int64_t size)
      : fd_(fd), path_(std::move(path)), size_(size) {}
  ~PlainStream() override { close(fd_); }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    while (true) {
      const ssize_t count = read(fd_, buffer, size);
      if (count >= 0) {
        position_ += count;
        return static_cast<size_t>(count);
      }
      if (errno != EINTR) return ErrnoStatus(errno, absl::StrCat("reading ", path_));
    }
  }
  int64_t file_position() const override { return position_; }
  int64_t file_size() const override { return size_; }
  const std::string& path() const { return path_; }

 private:
  const int fd_;
  const std::string path_;
  const int64_t size_;
  int64_t position_ = 0;
};

// What gzip and zstd share: a refillable buffer of compressed bytes.
class CompressedStream : public ByteStream {
 public:
  explicit CompressedStream(std::unique_ptr<PlainStream> file)
      : file_(std::move(file)), input_(kBufferBytes) {}
  int64_t file_position() const override { return file_->file_position(); }
  int64_t file_size() const override { return file_->file_size(); }

 protected:
  // Damage found after some output: the output is handed on first, the error with the next call.
  absl::StatusOr<size_t> Fail(size_t produced, absl::Status damage) {
    damage_ = std::move(damage);
    if (produced > 0) return produced;
    return damage_;
  }
  // Bytes now in input_; 0 at the end of the file.
  absl::StatusOr<size_t> Refill() { return file_->Read(input_.data(), input_.size()); }
  absl::Status Damage(std::string_view what) const {
    return absl::DataLossError(absl::StrCat(file_->path(), ": ", std::string(what), " near byte ",
                                            file_->file_position(),
                                            " of the compressed file; copy or compress it again"));
  }

  absl::Status damage_;  // what the next Read returns
  std::unique_ptr<PlainStream> file_;
  std::vector<char> input_;
};

class GzipStream : public CompressedStream {
 public:
  explicit GzipStream(std::unique_ptr<PlainStream> file) : CompressedStream(std::move(file)) {
    inflateInit2(&z_, /*windowBits: gzip*/ 15 + 16);
  }
  ~GzipStream() override { inflateEnd(&z_); }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    if (!damage_.ok()) return damage_;
    z_.next_out = reinterpret_cast<Bytef*>(buffer);
    z_.avail_out = static_cast<uInt>(size);
    while (z_.avail_out == size) {
      if (z_.avail_in == 0) {
        FT_ASSIGN_OR_RETURN(const size_t count, Refill());
        if (count == 0) {
          if (in_member_) return Damage("the gzip data is cut off");
          break;
        }
        z_.next_in = reinterpret_cast<Bytef*>(input_.data());
        z_.avail_in = static_cast<uInt>(count);
      }
      if (!in_member_) {
        // After a member, zero padding may follow (tape blocks) or another member.
        if (*z_.next_in == 0) {
          ++z_.next_in;
          --z_.avail_in;
          continue;
        }
        inflateReset(&z_);
        in_member_ = true;
      }
      const int result = inflate(&z_, Z_NO_FLUSH);
      if (result == Z_STREAM_END) {
        in_member_ = false;
      } else if (result != Z_OK && result != Z_BUF_ERROR) {
        return Fail(size - z_.avail_out, Damage(absl::StrCat("the gzip data is damaged (",
                                                             z_.msg ? z_.msg : "unknown", ")")));
      }
    }
    return size - z_.avail_out;
  }

 private:
  z_stream z_{};
  bool in_member_ = true;
};

class ZstdStream : public CompressedStream {
 public:
  explicit ZstdStream(std::unique_ptr<PlainStream> file)
      : CompressedStream(std::move(file)), context_(ZSTD_createDCtx()) {}
  ~ZstdStream() override { ZSTD_freeDCtx(context_); }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    if (!damage_.ok()) return damage_;
    ZSTD_outBuffer out{buffer, size, 0};
    while (out.pos == 0) {
      if (in_.pos == in_.size && !pending_output_) {
        FT_ASSIGN_OR_RETURN(const size_t count, Refill());
        if (count == 0) {
          if (in_frame_) return Damage("the zstd data is cut off");
          break;
        }
        in_ = {input_.data(), count, 0};
      }
      const size_t result = ZSTD_decompressStream(context_, &out, &in_);
      if (ZSTD_isError(result)) {
        return Fail(out.pos, Damage(absl::StrCat("the zstd data is damaged (",
                                                 ZSTD_getErrorName(result), ")")));
      }
      in_frame_ = result != 0;
      pending_output_ = in_frame_ && out.pos == out.size;
    }
    return out.pos;
  }

 private:
  ZSTD_DCtx* const context_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool in_frame_ = false;
  bool pending_output_ = false;  // the decoder may hold output that did not fit
};

}  // namespace

absl::StatusOr<std::unique_ptr<ByteStream>> ByteStream::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("opening data file ", path));
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(
        absl::StrCat("dataset.path: ", path, " is not a regular file; name the data file itself"));
  }
  posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  auto file = std::make_unique<PlainStream>(fd, path, info.st_size);
  unsigned char magic[4] = {};
  const ssize_t count = pread(fd, magic, sizeof magic, 0);
  if (count >= 2 && magic[0] == 0x1F && magic[1] == 0x8B)
    return std::make_unique<GzipStream>(std::move(file));
  if (count == 4 && magic[0] == 0x28 && magic[1] == 0xB5 && magic[2] == 0x2F && magic[3] == 0xFD) {
    return std::make_unique<ZstdStream>(std::move(file));
  }
  return file;
}

absl::StatusOr<std::string> ReadHead(const std::string& path, size_t size) {
  FT_ASSIGN_OR_RETURN(auto stream, ByteStream::Open(path));
  std::string head(size, '\0');
  size_t filled = 0;
  while (filled < size) {
    absl::StatusOr<size_t> count = stream->Read(head.data() + filled, size - filled);
    if (!count.ok()) {
      if (filled > 0 && absl::IsDataLoss(count.status())) break;
      return count.status();
    }
    if (*count == 0) break;
    filled += *count;
  }
  head.resize(filled);
  return head;
}

}  // namespace finetuned
