#include "server/api/artifact_files.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"
#include "server/artifacts/artifact_reader.h"

namespace finetuned {
namespace {

class UploadSession : public FileTransfers::Upload {
 public:
  UploadSession(std::unique_ptr<UploadStore::Session> session, v1::UploadHeader header,
                JobStore* store)
      : session_(std::move(session)), header_(std::move(header)), store_(store) {}

  bool complete() const override { return session_->complete(); }
  absl::Status Append(std::string_view bytes) override { return session_->Append(bytes); }

  absl::StatusOr<v1::UploadFileResponse> Finish() override {
    FT_RETURN_IF_ERROR(session_->Finish());
    finetuned::Upload record;
    record.sha256 = header_.sha256();
    record.size_bytes = header_.size_bytes();
    record.name = header_.name();
    record.create_time = absl::Now();
    FT_RETURN_IF_ERROR(
        store_->WriteSync([&](StoreWriter& writer) { return writer.PutUpload(record); }));
    v1::UploadFileResponse response;
    response.set_sha256(header_.sha256());
    response.set_size_bytes(header_.size_bytes());
    response.set_uri(absl::StrCat("upload:", header_.sha256()));
    return response;
  }

 private:
  const std::unique_ptr<UploadStore::Session> session_;
  const v1::UploadHeader header_;
  JobStore* const store_;
};

class ArtifactDownload : public FileTransfers::Download {
 public:
  ArtifactDownload(ArtifactReader reader, std::string sha256)
      : reader_(std::move(reader)), sha256_(std::move(sha256)) {}

  uint64_t size_bytes() const override { return reader_.size_bytes(); }
  std::string sha256() const override { return sha256_; }
  absl::StatusOr<std::string> Read(uint64_t offset, size_t max_bytes) override {
    return reader_.Read(offset, max_bytes);
  }

 private:
  const ArtifactReader reader_;
  const std::string sha256_;
};

}  // namespace

absl::StatusOr<v1::QueryUploadResponse> ArtifactFiles::Query(const std::string& sha256) {
  FT_ASSIGN_OR_RETURN(const UploadStore::Progress progress, uploads_->Query(sha256));
  v1::QueryUploadResponse response;
  response.set_received_bytes(progress.received_bytes);
  response.set_complete(progress.complete);
  return response;
}

absl::StatusOr<std::unique_ptr<FileTransfers::Upload>> ArtifactFiles::OpenUpload(
    const v1::UploadHeader& header) {
  FT_ASSIGN_OR_RETURN(auto session,
                      uploads_->Begin(header.sha256(), header.size_bytes(), header.offset()));
  return std::make_unique<UploadSession>(std::move(session), header, store_);
}

absl::StatusOr<std::unique_ptr<FileTransfers::Download>> ArtifactFiles::OpenArtifact(
    const std::string& job_id, const std::string& path) {
  absl::StatusOr<v1::Job> job = absl::InternalError("not read");
  store_->ReadSync([&](StoreReader& reader) { job = reader.GetJob(job_id); });
  if (!job.ok()) return WithReason(job.status(), "JOB_NOT_FOUND", {{"job_id", job_id}});
  auto reader = ArtifactReader::Open(absl::StrCat(job_directory_(job_id), "/artifacts"), path);
  if (absl::IsNotFound(reader.status()))
    return WithHelp(WithReason(absl::NotFoundError(absl::StrCat(
                                   "job ", job_id, " has no artifact '", path, "' (yet)")),
                               "ARTIFACT_NOT_FOUND", {{"job_id", job_id}}),
                    "list the artifacts that are there",
                    absl::StrCat("finetune download ", job_id, " --list"));
  if (!reader.ok()) return reader.status();
  // The hash that was recorded when the file was written, so that a file that has changed since
  // shows; of the file itself where none was recorded.
  std::string sha256;
  for (const v1::Artifact& artifact : job->result().artifacts())
    if (artifact.path() == path) sha256 = artifact.sha256();
  if (sha256.empty()) {
    FT_ASSIGN_OR_RETURN(sha256, reader->Sha256());
  }
  return std::make_unique<ArtifactDownload>(*std::move(reader), std::move(sha256));
}

}  // namespace finetuned
