#include "server/artifacts/artifact_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"

namespace finetuned {

absl::StatusOr<ArtifactReader> ArtifactReader::Open(const std::string& directory,
                                                    const std::string& path) {
  const std::vector<std::string> parts = absl::StrSplit(path, '/');
  for (const std::string& part : parts) {
    if (part.empty() || part == "." || part == ".." || part.size() > 255 ||
        part.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat("artifact path '", path.substr(0, 300),
                       "' is not allowed; give a path as ListArtifacts shows it, without '..' or a "
                       "leading '/'"));
    }
  }
  int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("no artifacts at ", directory));
  for (size_t i = 0; i < parts.size(); ++i) {
    // O_NONBLOCK: opening a named pipe must not wait for its other end.
    const int flags = i + 1 < parts.size() ? O_DIRECTORY : O_NONBLOCK;
    const int next = openat(fd, parts[i].c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | flags);
    const int error = errno;
    struct stat info;
    const bool link = next < 0 && fstatat(fd, parts[i].c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
                      S_ISLNK(info.st_mode);
    close(fd);
    if (link) {
      return absl::PermissionDeniedError(absl::StrCat("artifact '", path, "': '", parts[i],
                                                      "' is a link; only real files are served"));
    }
    if (next < 0) return ErrnoStatus(error, absl::StrCat("artifact '", path, "' cannot be opened"));
    fd = next;
  }
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return absl::PermissionDeniedError(
        absl::StrCat("artifact '", path, "' is no regular file; only files are served"));
  }
  return ArtifactReader(fd, static_cast<uint64_t>(info.st_size), path);
}

ArtifactReader::ArtifactReader(ArtifactReader&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      size_bytes_(other.size_bytes_),
      path_(std::move(other.path_)) {}

ArtifactReader::~ArtifactReader() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::string> ArtifactReader::Read(uint64_t offset, size_t max_bytes) const {
  if (offset >= size_bytes_) return std::string();
  std::string bytes(static_cast<size_t>(std::min<uint64_t>(max_bytes, size_bytes_ - offset)), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t n = pread(fd_, bytes.data() + filled, bytes.size() - filled,
                            static_cast<off_t>(offset + filled));
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, absl::StrCat("cannot read artifact '", path_, "'"));
    }
    if (n == 0) {
      return absl::DataLossError(
          absl::StrCat("artifact '", path_, "' became shorter while it was read: ", size_bytes_,
                       " bytes at first, now ", offset + filled, "; download it again"));
    }
    filled += static_cast<size_t>(n);
  }
  return bytes;
}

absl::StatusOr<std::string> ArtifactReader::Sha256() const {
  finetuned::Sha256 hash;
  constexpr size_t kPiece = 1 << 20;
  for (uint64_t offset = 0; offset < size_bytes_; offset += kPiece) {
    FT_ASSIGN_OR_RETURN(const std::string bytes, Read(offset, kPiece));
    hash.Update(bytes);
  }
  return hash.Finish();
}

}  // namespace finetuned
