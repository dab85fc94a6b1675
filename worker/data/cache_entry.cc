#include "worker/data/cache_entry.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace {

constexpr char kLockName[] = "lock";
constexpr size_t kSha256Digits = 64;

// flock on a file, made if need be. The lock goes with the descriptor, also when the process is
// killed.
class FileLock {
 public:
  static absl::StatusOr<int> Take(const std::string& path, bool wait) {
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) return ErrnoStatus(errno, absl::StrCat("opening ", path));
    while (flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) != 0) {
      if (errno == EINTR) continue;
      const int error = errno;
      close(fd);
      if (error == EWOULDBLOCK) return absl::AlreadyExistsError("locked");
      return ErrnoStatus(error, absl::StrCat("locking ", path));
    }
    return fd;
  }
  explicit FileLock(int fd) : fd_(fd) {}
  ~FileLock() { close(fd_); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  const int fd_;
};

// Unfinished directories whose builder is gone. REQUIRES: the cache's lock is held.
void RemoveStale(const std::string& cache_dir) {
  std::error_code error;
  for (const auto& item : std::filesystem::directory_iterator(cache_dir, error)) {
    if (item.path().filename().string().find(".tmp.") == std::string::npos) continue;
    const absl::StatusOr<int> lock =
        FileLock::Take((item.path() / kLockName).string(), /*wait=*/false);
    if (!lock.ok()) continue;  // its builder is alive
    FileLock held(*lock);
    RemoveAll(item.path().string()).IgnoreError();
  }
}

std::string SplitBytes(const std::vector<uint32_t>& train,
                       const std::vector<uint32_t>& validation) {
  std::string bytes;
  for (const std::vector<uint32_t>* side : {&train, &validation}) {
    const uint64_t count = side->size();
    bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
    bytes.append(reinterpret_cast<const char*>(side->data()), side->size() * sizeof(uint32_t));
  }
  return bytes;
}

bool ReadSide(std::string_view& bytes, size_t samples, std::vector<uint32_t>& side) {
  uint64_t count = 0;
  if (bytes.size() < sizeof count) return false;
  std::memcpy(&count, bytes.data(), sizeof count);
  bytes.remove_prefix(sizeof count);
  if (count > bytes.size() / sizeof(uint32_t)) return false;
  side.resize(count);
  std::memcpy(side.data(), bytes.data(), count * sizeof(uint32_t));
  bytes.remove_prefix(count * sizeof(uint32_t));
  for (const uint32_t sample : side) {
    if (sample >= samples) return false;
  }
  return true;
}

// A file whose first 64 bytes are the SHA-256 of the rest, in hex.
absl::Status WriteHashed(const std::string& path, std::string_view contents) {
  return WriteFileAtomic(path, absl::StrCat(Sha256Hex(contents), std::string(contents)));
}
absl::StatusOr<std::string> ReadHashed(const std::string& path) {
  absl::StatusOr<std::string> file = ReadFile(path);
  if (absl::IsNotFound(file.status())) return absl::DataLossError(absl::StrCat(path, ": missing"));
  FT_RETURN_IF_ERROR(file.status());
  if (file->size() < kSha256Digits ||
      Sha256Hex(std::string_view(*file).substr(kSha256Digits)) != file->substr(0, kSha256Digits)) {
    return absl::DataLossError(absl::StrCat(path, ": damaged"));
  }
  return file->substr(kSha256Digits);
}

}  // namespace

absl::StatusOr<CacheEntry> OpenCacheEntry(const std::string& cache_dir, const std::string& key) {
  CacheEntry entry;
  entry.directory = absl::StrCat(cache_dir, "/", key);
  struct stat info {};
  if (stat(entry.directory.c_str(), &info) != 0)
    return ErrnoStatus(errno, absl::StrCat("cache entry ", entry.directory));
  FT_ASSIGN_OR_RETURN(entry.meta_json,
                      ReadHashed(absl::StrCat(entry.directory, "/", kMetaFileName)));
  FT_ASSIGN_OR_RETURN(const std::string split,
                      ReadHashed(absl::StrCat(entry.directory, "/", kSplitFileName)));
  absl::StatusOr<std::shared_ptr<const TokenFile>> tokens =
      TokenFile::Open(absl::StrCat(entry.directory, "/", kTokenFileName));
  if (absl::IsNotFound(tokens.status()))
    return absl::DataLossError(absl::StrCat(entry.directory, ": token file missing"));
  FT_RETURN_IF_ERROR(tokens.status());
  entry.tokens = *std::move(tokens);
  std::string_view rest = split;
  const size_t samples = entry.tokens->index().size();
  if (!ReadSide(rest, samples, entry.train) || !ReadSide(rest, samples, entry.validation) ||
      !rest.empty()) {
    return absl::DataLossError(absl::StrCat(entry.directory, ": damaged split"));
  }
  return entry;
}

absl::Status RemoveCacheEntry(const std::string& cache_dir, const std::string& key) {
  FT_ASSIGN_OR_RETURN(const int fd,
                      FileLock::Take(absl::StrCat(cache_dir, "/", kLockName), /*wait=*/true));
  FileLock lock(fd);
  return RemoveAll(absl::StrCat(cache_dir, "/", key));
}

CacheEntryBuilder::CacheEntryBuilder(std::string cache_dir, std::string key, std::string directory,
                                     int lock_fd)
    : cache_dir_(std::move(cache_dir)),
      key_(std::move(key)),
      directory_(std::move(directory)),
      lock_fd_(lock_fd) {}

CacheEntryBuilder::~CacheEntryBuilder() {
  RemoveAll(directory_).IgnoreError();  // after Commit there is nothing of that name
  close(lock_fd_);
}

absl::StatusOr<std::unique_ptr<CacheEntryBuilder>> CacheEntryBuilder::Create(
    const std::string& cache_dir, const std::string& key) {
  static std::atomic<uint64_t> counter{0};
  FT_RETURN_IF_ERROR(MakeDirectories(cache_dir));
  FT_ASSIGN_OR_RETURN(const int fd,
                      FileLock::Take(absl::StrCat(cache_dir, "/", kLockName), /*wait=*/true));
  FileLock lock(fd);
  RemoveStale(cache_dir);
  const std::string directory =
      absl::StrCat(cache_dir, "/", key, ".tmp.", getpid(), ".", counter.fetch_add(1));
  FT_RETURN_IF_ERROR(RemoveAll(directory));
  FT_RETURN_IF_ERROR(MakeDirectories(directory));
  FT_ASSIGN_OR_RETURN(const int own,
                      FileLock::Take(absl::StrCat(directory, "/", kLockName), /*wait=*/true));
  return std::unique_ptr<CacheEntryBuilder>(new CacheEntryBuilder(cache_dir, key, directory, own));
}

absl::Status CacheEntryBuilder::WriteSplit(const std::vector<uint32_t>& train,
                                           const std::vector<uint32_t>& validation) {
  return WriteHashed(PathOf(kSplitFileName), SplitBytes(train, validation));
}

absl::Status CacheEntryBuilder::WriteMeta(const std::string& json) {
  return WriteHashed(PathOf(kMetaFileName), json);
}

absl::Status CacheEntryBuilder::Commit() {
  FT_ASSIGN_OR_RETURN(const int fd,
                      FileLock::Take(absl::StrCat(cache_dir_, "/", kLockName), /*wait=*/true));
  FileLock lock(fd);
  const std::string target = absl::StrCat(cache_dir_, "/", key_);
  struct stat info {};
  if (stat(target.c_str(), &info) == 0)
    return absl::OkStatus();  // another builder was faster; same key, same content
  unlink(PathOf(kLockName).c_str());
  FT_RETURN_IF_ERROR(SyncPath(directory_));
  return RenameDurable(directory_, target);
}

}  // namespace finetuned
