#include "client/transfer.h"

#include <sys/stat.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/format.h"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"

namespace finetuned {
namespace {

constexpr size_t kChunkBytes = 512 << 10;
constexpr int kTries = 20;  // with waits of up to 3 s: about a minute

struct Closer {
  void operator()(FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<FILE, Closer>;

absl::StatusOr<File> OpenFile(const std::string& path, const char* mode) {
  File file(std::fopen(path.c_str(), mode));
  if (file == nullptr) return ErrnoStatus(errno, path);
  return file;
}

int64_t FileSize(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode) ? info.st_size : -1;
}

// "name  45 %  12.3 MiB / 27.1 MiB  8.1 MiB/s", redrawn in place.
class ProgressLine {
 public:
  ProgressLine(const Output& out, std::string name, uint64_t total, uint64_t start)
      : out_(out), name_(std::move(name)), total_(total), start_(start), begin_(Clock::now()) {}
  ~ProgressLine() {
    if (drawn_) out_.Print("\r\x1b[2K");
  }
  void At(uint64_t done) {
    const auto now = Clock::now();
    if (!out_.terminal() || out_.machine() || out_.quiet() ||
        now - last_ < std::chrono::milliseconds(100))
      return;
    last_ = now;
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    const std::string text =
        absl::StrCat(Printable(name_, true), "  ", total_ > 0 ? 100 * done / total_ : 100, " %  ",
                     FormatBytes(done), " / ", FormatBytes(total_), "  ",
                     FormatBytes(static_cast<uint64_t>(static_cast<double>(done - start_) /
                                                       std::max(seconds, 1e-3))),
                     "/s");
    out_.Print(absl::StrCat("\r\x1b[2K", Truncate(text, out_.width() - 1)));
    drawn_ = true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  const Output& out_;
  const std::string name_;
  const uint64_t total_;
  const uint64_t start_;
  const Clock::time_point begin_;
  Clock::time_point last_;
  bool drawn_ = false;
};

bool IsLost(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) || absl::IsUnknown(status);
}

// Runs `attempt` until it succeeds or fails for another reason than the connection.
template <typename Attempt>
absl::Status Retry(Context& context, Attempt attempt) {
  absl::Status status;
  for (int i = 0; i < kTries; ++i) {
    status = attempt();
    if (status.ok() || !IsLost(status) || Interrupted()) break;
    if (i == 0) context.out.Note("connection lost; trying again");
    if (SleepUnlessInterrupted(std::min(3000, 300 << std::min(i, 4)))) break;
  }
  if (Interrupted()) return absl::CancelledError("interrupted");
  return status;
}

absl::Status SendRest(Context& context, const std::string& path, const std::string& sha256,
                      uint64_t size, uint64_t offset) {
  FT_ASSIGN_OR_RETURN(File file, OpenFile(path, "rb"));
  if (fseeko(file.get(), static_cast<off_t>(offset), SEEK_SET) != 0)
    return ErrnoStatus(errno, path);
  grpc::ClientContext call;
  CancelOnInterrupt guard(&call);
  v1::UploadFileResponse response;
  const auto writer = context.connection.stub().UploadFile(&call, &response);
  v1::UploadFileRequest request;
  v1::UploadHeader* header = request.mutable_header();
  header->set_sha256(sha256);
  header->set_size_bytes(size);
  header->set_offset(offset);
  header->set_name(path.substr(path.rfind('/') + 1));
  bool open = writer->Write(request);
  ProgressLine progress(context.out, path, size, offset);
  std::string buffer(kChunkBytes, '\0');
  uint64_t sent = offset;
  while (open && sent < size) {
    const size_t count = std::fread(buffer.data(), 1, buffer.size(), file.get());
    if (count == 0) {
      call.TryCancel();
      writer->Finish();
      return absl::DataLossError(absl::StrCat(path, " became shorter while it was sent"));
    }
    request.set_chunk(buffer.data(), count);
    open = writer->Write(request);
    sent += count;
    progress.At(sent);
  }
  writer->WritesDone();
  return FromGrpcStatus(writer->Finish());
}

// Fetches from the end of `part` on.
absl::Status ReceiveRest(Context& context, const std::string& job_id, const v1::Artifact& artifact,
                         const std::string& part) {
  const int64_t have = std::max<int64_t>(0, FileSize(part));
  FT_ASSIGN_OR_RETURN(File file, OpenFile(part, "ab"));
  v1::DownloadArtifactRequest request;
  request.set_job_id(job_id);
  request.set_path(artifact.path());
  request.set_offset(static_cast<uint64_t>(have));
  grpc::ClientContext call;
  CancelOnInterrupt guard(&call);
  const auto reader = context.connection.stub().DownloadArtifact(&call, request);
  v1::DownloadArtifactResponse response;
  uint64_t done = static_cast<uint64_t>(have);
  ProgressLine progress(context.out, artifact.path(), artifact.size_bytes(), done);
  absl::Status local;
  while (reader->Read(&response)) {
    const std::string& chunk = response.chunk();
    done += chunk.size();
    if (done > artifact.size_bytes()) {
      local = absl::DataLossError(absl::StrCat(artifact.path(), ": the server sent more than the ",
                                               artifact.size_bytes(), " bytes it promised"));
    } else if (std::fwrite(chunk.data(), 1, chunk.size(), file.get()) != chunk.size()) {
      local = ErrnoStatus(errno, part);
    }
    if (!local.ok()) {
      call.TryCancel();
      break;
    }
    progress.At(done);
  }
  const grpc::Status status = reader->Finish();
  if (!local.ok()) return local;
  if (std::fflush(file.get()) != 0) return ErrnoStatus(errno, part);
  return FromGrpcStatus(status);
}

bool StaysInside(const std::string& path) {
  if (path.empty() || path[0] == '/' || path.find('\0') != std::string::npos) return false;
  for (const absl::string_view piece : absl::StrSplit(path, '/')) {
    if (piece.empty() || piece == "." || piece == "..") return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::string> Upload(Context& context, const std::string& path) {
  const int64_t size = FileSize(path);
  if (size < 0) {
    FT_ASSIGN_OR_RETURN(File file, OpenFile(path, "rb"));
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  FT_ASSIGN_OR_RETURN(const std::string sha256, Sha256File(path));
  FT_RETURN_IF_ERROR(Retry(context, [&]() -> absl::Status {
    v1::QueryUploadRequest query;
    query.set_sha256(sha256);
    v1::QueryUploadResponse there;
    FT_RETURN_IF_ERROR(
        FromGrpcStatus(context.connection.Call(&Connection::Stub::QueryUpload, query, &there)));
    if (there.complete()) {
      context.out.Note(absl::StrCat(path, ": the server has it already"));
      return absl::OkStatus();
    }
    const uint64_t offset = std::min<uint64_t>(there.received_bytes(), static_cast<uint64_t>(size));
    if (offset > 0) context.out.Note(absl::StrCat(path, ": going on at ", FormatBytes(offset)));
    return SendRest(context, path, sha256, static_cast<uint64_t>(size), offset);
  }));
  return absl::StrCat("upload:", sha256);
}

absl::Status Download(Context& context, const std::string& job_id, const v1::Artifact& artifact,
                      const std::string& directory) {
  if (!StaysInside(artifact.path())) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the artifact path ", Printable(artifact.path(), true), " would leave ", directory));
  }
  const std::string target = absl::StrCat(directory, "/", artifact.path());
  const std::string part = target + ".part";
  if (FileSize(target) == static_cast<int64_t>(artifact.size_bytes())) {
    const absl::StatusOr<std::string> there = Sha256File(target);
    if (there.ok() && *there == artifact.sha256()) return absl::OkStatus();
  }
  FT_RETURN_IF_ERROR(MakeDirectories(target.substr(0, target.rfind('/'))));
  // Twice at most: a stale part of another file fails the hash once and is thrown away.
  for (int round = 0;; ++round) {
    if (FileSize(part) > static_cast<int64_t>(artifact.size_bytes()))
      FT_RETURN_IF_ERROR(RemoveAll(part));
    FT_RETURN_IF_ERROR(
        Retry(context, [&] { return ReceiveRest(context, job_id, artifact, part); }));
    FT_ASSIGN_OR_RETURN(const std::string sha256, Sha256File(part));
    if (sha256 == artifact.sha256()) break;
    FT_RETURN_IF_ERROR(RemoveAll(part));
    if (round > 0) {
      return absl::DataLossError(absl::StrCat(artifact.path(), ": SHA-256 is ", sha256,
                                              ", the server promised ", artifact.sha256()));
    }
  }
  return RenameDurable(part, target);
}

}  // namespace finetuned
