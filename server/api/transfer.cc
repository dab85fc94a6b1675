#include "server/api/transfer.h"

#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"
#include "server/api/request_checks.h"

namespace finetuned {
namespace {

constexpr uint64_t kMaxUploadBytes = uint64_t{1} << 40;
constexpr size_t kPieceBytes = 256 << 10;

absl::Status Stopping() {
  return WithReason(
      absl::UnavailableError(
          "the server is stopping; what was transferred is kept: resume from its offset"),
      "SERVER_STOPPING");
}

absl::Status CheckHeader(const v1::UploadHeader& header) {
  FT_RETURN_IF_ERROR(CheckShape(header));
  FT_RETURN_IF_ERROR(CheckSha256("header.sha256", header.sha256()));
  if (header.size_bytes() == 0 || header.size_bytes() > kMaxUploadBytes)
    return InvalidField("header.size_bytes", absl::StrCat("size_bytes is ", header.size_bytes()),
                        absl::StrCat("1 to ", kMaxUploadBytes));
  if (header.offset() > header.size_bytes())
    return InvalidField("header.offset",
                        absl::StrCat("offset is ", header.offset(), ", the file has ",
                                     header.size_bytes(), " bytes"),
                        "0 to what QueryUpload answered");
  if (header.name().size() > 255)
    return InvalidField("header.name", absl::StrCat("name has ", header.name().size(), " bytes"),
                        "at most 255");
  return absl::OkStatus();
}

// One step at a time: either a read of the stream or a task on the pool is under way, never both,
// so nothing is locked.
class UploadStream : public grpc::ServerReadReactor<v1::UploadFileRequest> {
 public:
  UploadStream(FileTransfers* files, WorkPool* pool, v1::UploadFileResponse* response)
      : files_(files), pool_(pool), response_(response) {}

  void Start() { StartRead(&message_); }
  void Refuse(const absl::Status& status) { Finish(ToGrpcStatus(status)); }

  void OnReadDone(bool ok) override {
    if (!ok) return upload_ ? OnPool([this] { return Complete(); }) : Refuse(NoHeader());
    if (message_.has_header()) {
      if (upload_)
        return Refuse(
            InvalidField("header", "there is a second header", "one header, then chunks"));
      if (absl::Status check = CheckHeader(message_.header()); !check.ok()) return Refuse(check);
      return OnPool([this] { return Open(); });
    }
    if (!upload_) return Refuse(NoHeader());
    const size_t bytes = message_.chunk().size();
    if (bytes > kMaxChunkBytes)
      return Refuse(InvalidField("chunk", absl::StrCat("the chunk has ", bytes, " bytes"),
                                 absl::StrCat("at most ", kMaxChunkBytes)));
    if (bytes > left_bytes_)
      return Refuse(InvalidField(
          "chunk",
          absl::StrCat("the file grows ", bytes - left_bytes_, " bytes beyond header.size_bytes"),
          "as many bytes as the header says"));
    OnPool([this] { return Append(); });
  }

  void OnDone() override { delete this; }

 private:
  // What a step on the pool leads to: the next read, or the end with a status.
  using Next = std::optional<absl::Status>;

  static absl::Status NoHeader() {
    return InvalidField("header", "the stream does not start with a header",
                        "an UploadHeader with sha256 and size_bytes");
  }

  void OnPool(std::function<Next()> step) {
    const bool posted = pool_->Post([this, step = std::move(step)] {
      const Next next = step();
      if (!next) return StartRead(&message_);
      upload_.reset();
      Refuse(*next);
    });
    if (!posted) Refuse(Stopping());
  }

  Next Open() {
    auto upload = files_->OpenUpload(message_.header());
    if (!upload.ok()) return upload.status();
    upload_ = *std::move(upload);
    left_bytes_ = message_.header().size_bytes() - message_.header().offset();
    if (upload_->complete()) return Complete();
    return std::nullopt;
  }

  Next Append() {
    if (absl::Status status = upload_->Append(message_.chunk()); !status.ok()) return status;
    left_bytes_ -= message_.chunk().size();
    return std::nullopt;
  }

  Next Complete() {
    auto response = upload_->Finish();
    if (response.ok()) *response_ = *std::move(response);
    return response.status();
  }

  FileTransfers* const files_;
  WorkPool* const pool_;
  v1::UploadFileResponse* const response_;
  v1::UploadFileRequest message_;
  std::unique_ptr<FileTransfers::Upload> upload_;
  uint64_t left_bytes_ = 0;
};

// As above: a task on the pool or a write is under way, never both.
class DownloadStream : public grpc::ServerWriteReactor<v1::DownloadArtifactResponse> {
 public:
  DownloadStream(FileTransfers* files, WorkPool* pool, const v1::DownloadArtifactRequest& request)
      : files_(files), pool_(pool), request_(request), offset_(request.offset()) {}

  void Start() {
    OnPool([this] { return Open(); });
  }
  void Refuse(const absl::Status& status) { Finish(ToGrpcStatus(status)); }

  void OnWriteDone(bool ok) override {
    if (!ok) return Refuse(absl::CancelledError("the client has gone"));
    message_.Clear();
    OnPool([this] { return ReadPiece(); });
  }

  void OnDone() override { delete this; }

 private:
  using Next = std::optional<absl::Status>;  // the next write, or the end

  void OnPool(std::function<Next()> step) {
    const bool posted = pool_->Post([this, step = std::move(step)] {
      const Next next = step();
      if (!next) return StartWrite(&message_);
      download_.reset();
      Refuse(*next);
    });
    if (!posted) Refuse(Stopping());
  }

  Next Open() {
    auto download = files_->OpenArtifact(request_.job_id(), request_.path());
    if (!download.ok()) return download.status();
    download_ = *std::move(download);
    const uint64_t size = download_->size_bytes();
    if (offset_ > size)
      return WithReason(
          absl::OutOfRangeError(absl::StrCat("offset is ", offset_, ", but ", request_.path(),
                                             " has ", size, " bytes; allowed: 0 to ", size)),
          "OFFSET_BEYOND_END");
    message_.set_size_bytes(size);
    message_.set_sha256(download_->sha256());
    // The first message goes out even for an empty rest: it carries size and hash.
    const Next next = ReadPiece();
    return next && next->ok() ? std::nullopt : next;
  }

  Next ReadPiece() {
    if (offset_ >= download_->size_bytes()) return absl::OkStatus();
    auto piece = download_->Read(offset_, kPieceBytes);
    if (!piece.ok()) return piece.status();
    if (piece->empty())
      return absl::DataLossError(absl::StrCat(request_.path(), " has become shorter than ",
                                              download_->size_bytes(), " bytes"));
    offset_ += piece->size();
    message_.set_chunk(*std::move(piece));
    return std::nullopt;
  }

  FileTransfers* const files_;
  WorkPool* const pool_;
  const v1::DownloadArtifactRequest request_;
  v1::DownloadArtifactResponse message_;
  std::unique_ptr<FileTransfers::Download> download_;
  uint64_t offset_;
};

absl::Status CheckDownload(const v1::DownloadArtifactRequest& request) {
  FT_RETURN_IF_ERROR(CheckShape(request));
  FT_RETURN_IF_ERROR(CheckJobId("job_id", request.job_id()));
  if (request.path().empty() || request.path().size() > 1024)
    return InvalidField("path", absl::StrCat("path has ", request.path().size(), " bytes"),
                        "1 to 1024 bytes: an Artifact.path of ListArtifacts");
  return absl::OkStatus();
}

}  // namespace

grpc::ServerReadReactor<v1::UploadFileRequest>* StartUpload(FileTransfers* files, WorkPool* pool,
                                                            v1::UploadFileResponse* response,
                                                            const absl::Status& refusal) {
  auto* stream = new UploadStream(files, pool, response);
  refusal.ok() ? stream->Start() : stream->Refuse(refusal);
  return stream;
}

grpc::ServerWriteReactor<v1::DownloadArtifactResponse>* StartDownload(
    FileTransfers* files, WorkPool* pool, const v1::DownloadArtifactRequest& request,
    const absl::Status& refusal) {
  auto* stream = new DownloadStream(files, pool, request);
  absl::Status check = refusal;
  if (check.ok()) check = CheckDownload(request);
  check.ok() ? stream->Start() : stream->Refuse(check);
  return stream;
}

}  // namespace finetuned
