#include "server/artifacts/upload_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace fs = std::filesystem;

bool IsSha256(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

namespace {

absl::Status CheckHash(const std::string& sha256) {
  if (IsSha256(sha256)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("sha256 has ", sha256.size(),
                   " characters or other ones than 0-9 a-f; allowed: 64 lower-case hex "
                   "digits, as `sha256sum FILE` prints them"));
}

// The size of a regular file; nothing when there is none.
absl::StatusOr<std::optional<uint64_t>> FileSize(const std::string& path) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return std::optional<uint64_t>();
    return ErrnoStatus(errno, absl::StrCat("cannot stat ", path));
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is no regular file; remove it from the upload store"));
  }
  return std::optional<uint64_t>(static_cast<uint64_t>(info.st_size));
}

// What the sessions of one hash share: one writes at a time, and only the newest.
struct HashState {
  std::mutex mutex;
  uint64_t newest = 0;  // number of the newest session; guarded by `mutex`
};

class CompleteSession final : public UploadStore::Session {
 public:
  explicit CompleteSession(uint64_t size_bytes) : size_bytes_(size_bytes) {}
  bool complete() const override { return true; }
  uint64_t received_bytes() const override { return size_bytes_; }
  absl::Status Append(std::string_view) override { return absl::OkStatus(); }
  absl::Status Finish() override { return absl::OkStatus(); }

 private:
  const uint64_t size_bytes_;
};

class PartialSession final : public UploadStore::Session {
 public:
  PartialSession(std::shared_ptr<HashState> state, uint64_t number, int fd, std::string partial,
                 std::string final_path, std::string sha256, uint64_t size_bytes, uint64_t received)
      : state_(std::move(state)),
        number_(number),
        fd_(fd),
        partial_(std::move(partial)),
        final_(std::move(final_path)),
        sha256_(std::move(sha256)),
        size_bytes_(size_bytes),
        received_(received) {}
  ~PartialSession() override { close(fd_); }

  bool complete() const override { return false; }
  uint64_t received_bytes() const override { return received_; }

  absl::Status Append(std::string_view bytes) override {
    std::lock_guard<std::mutex> lock(state_->mutex);
    FT_RETURN_IF_ERROR(CheckNewest());
    if (bytes.size() > size_bytes_ - received_) {
      return absl::OutOfRangeError(
          absl::StrCat("the upload of ", sha256_, " was announced with ", size_bytes_,
                       " bytes, and more have come; send the file's real size"));
    }
    while (!bytes.empty()) {
      const ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(received_));
      if (n < 0) {
        if (errno == EINTR) continue;
        return ErrnoStatus(
            errno, absl::StrCat("cannot write ", partial_, " (", received_, " of ", size_bytes_,
                                " bytes are kept, the upload can be resumed)"));
      }
      received_ += static_cast<uint64_t>(n);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    std::lock_guard<std::mutex> lock(state_->mutex);
    FT_RETURN_IF_ERROR(CheckNewest());
    if (received_ < size_bytes_) {
      return absl::FailedPreconditionError(absl::StrCat("the upload of ", sha256_, " has ",
                                                        received_, " of ", size_bytes_,
                                                        " bytes; resume it at offset ", received_));
    }
    if (fsync(fd_) != 0) return ErrnoStatus(errno, absl::StrCat("cannot fsync ", partial_));
    FT_ASSIGN_OR_RETURN(const std::string actual, Sha256File(partial_));
    if (actual != sha256_) {
      unlink(partial_.c_str());
      return absl::InvalidArgumentError(
          absl::StrCat("the bytes received have SHA-256 ", actual, ", not ", sha256_,
                       " as announced; they were dropped. Did the file change while it was sent? "
                       "Upload it again"));
    }
    FT_RETURN_IF_ERROR(MakeDirectories(fs::path(final_).parent_path().string()));
    FT_RETURN_IF_ERROR(SyncPath(fs::path(final_).parent_path().parent_path().string()));
    return RenameDurable(partial_, final_);
  }

 private:
  // With state_->mutex held.
  absl::Status CheckNewest() const {
    if (state_->newest == number_) return absl::OkStatus();
    return absl::AbortedError(
        absl::StrCat("a newer upload of ", sha256_,
                     " has taken over; ask QueryUpload how far it is and resume there"));
  }

  const std::shared_ptr<HashState> state_;
  const uint64_t number_;
  const int fd_;
  const std::string partial_, final_, sha256_;
  const uint64_t size_bytes_;
  uint64_t received_;
};

class UploadStoreImpl final : public UploadStore {
 public:
  explicit UploadStoreImpl(UploadStoreOptions options) : options_(std::move(options)) {}

  absl::StatusOr<Progress> Query(const std::string& sha256) override {
    FT_RETURN_IF_ERROR(CheckHash(sha256));
    FT_ASSIGN_OR_RETURN(const auto complete, FileSize(FinalPath(sha256)));
    if (complete.has_value()) return Progress{*complete, true};
    FT_ASSIGN_OR_RETURN(const auto partial, FileSize(PartialPath(sha256)));
    return Progress{partial.value_or(0), false};
  }

  absl::StatusOr<std::unique_ptr<Session>> Begin(const std::string& sha256, uint64_t size_bytes,
                                                 uint64_t offset) override {
    FT_RETURN_IF_ERROR(CheckHash(sha256));
    if (size_bytes > options_.max_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("size_bytes is ", size_bytes,
                                                     "; one upload may have at most ",
                                                     options_.max_bytes, " bytes; split the file"));
    }
    const std::shared_ptr<HashState> state = StateOf(sha256);
    std::lock_guard<std::mutex> lock(state->mutex);
    FT_ASSIGN_OR_RETURN(const auto complete, FileSize(FinalPath(sha256)));
    if (complete.has_value()) {
      if (*complete != size_bytes) {
        return absl::InvalidArgumentError(absl::StrCat("size_bytes is ", size_bytes,
                                                       ", but the file with SHA-256 ", sha256,
                                                       " has ", *complete, " bytes"));
      }
      return std::make_unique<CompleteSession>(size_bytes);
    }
    FT_ASSIGN_OR_RETURN(const auto partial, FileSize(PartialPath(sha256)));
    const uint64_t received = partial.value_or(0);
    if (offset > received || offset > size_bytes) {
      return absl::FailedPreconditionError(
          absl::StrCat("offset is ", offset, ", but the server has ", received, " of ", size_bytes,
                       " bytes of ", sha256, "; resume at that offset"));
    }
    FT_ASSIGN_OR_RETURN(const uint64_t free, FreeDiskBytes(options_.root));
    const uint64_t rest = size_bytes - offset,
                   held = received - offset;  // what is dropped makes room
    if (free + held < options_.disk_reserve_bytes ||
        free + held - options_.disk_reserve_bytes < rest) {
      return ErrnoStatus(
          ENOSPC, absl::StrCat("the upload needs ", rest, " more bytes and ",
                               options_.disk_reserve_bytes, " are kept free; ", free,
                               " bytes are free at ", options_.root, "; delete jobs or uploads"));
    }
    const std::string path = PartialPath(sha256);
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0) return ErrnoStatus(errno, absl::StrCat("cannot open ", path));
    auto session = std::make_unique<PartialSession>(state, ++state->newest, fd, path,
                                                    FinalPath(sha256), sha256, size_bytes, offset);
    if (ftruncate(fd, static_cast<off_t>(offset)) != 0) {
      return ErrnoStatus(errno, absl::StrCat("cannot truncate ", path));
    }
    return session;
  }

  absl::StatusOr<std::string> Find(const std::string& sha256) override {
    FT_RETURN_IF_ERROR(CheckHash(sha256));
    FT_ASSIGN_OR_RETURN(const auto complete, FileSize(FinalPath(sha256)));
    if (complete.has_value()) return FinalPath(sha256);
    FT_ASSIGN_OR_RETURN(const auto partial, FileSize(PartialPath(sha256)));
    return absl::NotFoundError(
        absl::StrCat("upload:", sha256,
                     partial.has_value() ? absl::StrCat(" is not complete (", *partial, " bytes)")
                                         : std::string(" is not on this server"),
                     "; send the file with `finetune upload FILE`"));
  }

  absl::StatusOr<int> RemoveStalePartials(absl::Duration age) override {
    int removed = 0;
    const absl::Time oldest = absl::Now() - age;
    std::error_code error;
    for (fs::directory_iterator it(options_.root + "/partial", error), end; !error && it != end;
         it.increment(error)) {
      struct stat info;
      const std::string path = it->path().string();
      const std::shared_ptr<HashState> state = StateOf(it->path().filename().string());
      std::lock_guard<std::mutex> lock(state->mutex);
      if (lstat(path.c_str(), &info) != 0 || absl::TimeFromTimespec(info.st_mtim) > oldest)
        continue;
      ++state->newest;  // a session that still has it open must not finish what is gone
      if (unlink(path.c_str()) == 0) ++removed;
    }
    if (error)
      return ErrnoStatus(error.value(), absl::StrCat("cannot list ", options_.root, "/partial"));
    return removed;
  }

 private:
  std::string FinalPath(const std::string& sha256) const {
    return absl::StrCat(options_.root, "/", sha256.substr(0, 2), "/", sha256);
  }
  std::string PartialPath(const std::string& sha256) const {
    return absl::StrCat(options_.root, "/partial/", sha256);
  }

  std::shared_ptr<HashState> StateOf(const std::string& sha256) {
    std::lock_guard<std::mutex> lock(mutex_);
    std::weak_ptr<HashState>& entry = states_[sha256];
    std::shared_ptr<HashState> state = entry.lock();
    if (state == nullptr) entry = state = std::make_shared<HashState>();
    // Names that nobody uses any more go when there are many.
    if (states_.size() > 1000) {
      for (auto it = states_.begin(); it != states_.end();)
        it = it->second.expired() ? states_.erase(it) : std::next(it);
    }
    return state;
  }

  const UploadStoreOptions options_;
  std::mutex mutex_;  // guards states_
  std::map<std::string, std::weak_ptr<HashState>> states_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<UploadStore>> UploadStore::Open(UploadStoreOptions options) {
  FT_RETURN_IF_ERROR(MakeDirectories(options.root + "/partial"));
  return std::make_unique<UploadStoreImpl>(std::move(options));
}

}  // namespace finetuned
