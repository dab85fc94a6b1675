#include "server/artifacts/artifact_transfers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/base/status_macros.h"
#include "server/artifacts/artifact_reader.h"
#include "server/store/job_store.h"

namespace finetuned {
namespace {

class UploadTransfer final : public FileTransfers::Upload {
 public:
  UploadTransfer(const v1::UploadHeader& header, std::unique_ptr<UploadStore::Session> session,
                 JobStore* store)
      : header_(header), session_(std::move(session)), store_(store) {}

  bool complete() const override { return session_->complete(); }
  absl::Status Append(std::string_view bytes) override { return session_->Append(bytes); }

  absl::StatusOr<v1::UploadFileResponse> Finish() override {
    FT_RETURN_IF_ERROR(session_->Finish());
    FT_RETURN_IF_ERROR(store_->WriteSync([&](StoreWriter& writer) -> absl::Status {
      FT_ASSIGN_OR_RETURN(const auto known, writer.FindUpload(header_.sha256()));
      if (known.has_value()) return absl::OkStatus();
      return writer.PutUpload(
          {header_.sha256(), header_.size_bytes(), header_.name(), absl::Now()});
    }));
    v1::UploadFileResponse response;
    response.set_sha256(header_.sha256());
    response.set_size_bytes(header_.size_bytes());
    response.set_uri(absl::StrCat("upload:", header_.sha256()));
    return response;
  }

 private:
  const v1::UploadHeader header_;
  const std::unique_ptr<UploadStore::Session> session_;
  JobStore* const store_;
};

class ArtifactDownload final : public FileTransfers::Download {
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

class ArtifactTransfers final : public FileTransfers {
 public:
  ArtifactTransfers(std::string data_dir, UploadStore* uploads, JobStore* store)
      : data_dir_(std::move(data_dir)), uploads_(uploads), store_(store) {}

  absl::StatusOr<v1::QueryUploadResponse> Query(const std::string& sha256) override {
    FT_ASSIGN_OR_RETURN(const UploadStore::Progress progress, uploads_->Query(sha256));
    v1::QueryUploadResponse response;
    response.set_received_bytes(progress.received_bytes);
    response.set_complete(progress.complete);
    return response;
  }

  absl::StatusOr<std::unique_ptr<Upload>> OpenUpload(const v1::UploadHeader& header) override {
    FT_ASSIGN_OR_RETURN(auto session,
                        uploads_->Begin(header.sha256(), header.size_bytes(), header.offset()));
    return std::make_unique<UploadTransfer>(header, std::move(session), store_);
  }

  absl::StatusOr<std::unique_ptr<Download>> OpenArtifact(const std::string& job_id,
                                                         const std::string& path) override {
    absl::StatusOr<v1::Job> job = absl::UnavailableError("the store is closed");
    store_->ReadSync([&](StoreReader& reader) { job = reader.GetJob(job_id); });
    FT_RETURN_IF_ERROR(job.status());
    // The id is one the server made, as it is in the store: it is safe in a path.
    const std::string directory = absl::StrCat(data_dir_, "/jobs/", job->job_id(), "/artifacts");
    FT_ASSIGN_OR_RETURN(ArtifactReader reader, ArtifactReader::Open(directory, path));
    std::string sha256;
    for (const v1::Artifact& artifact : job->result().artifacts()) {
      if (artifact.path() == path && artifact.size_bytes() == reader.size_bytes())
        sha256 = artifact.sha256();
    }
    if (sha256.empty()) {
      FT_ASSIGN_OR_RETURN(sha256, reader.Sha256());
    }
    return std::make_unique<ArtifactDownload>(std::move(reader), std::move(sha256));
  }

 private:
  const std::string data_dir_;
  UploadStore* const uploads_;
  JobStore* const store_;
};

}  // namespace

std::unique_ptr<FileTransfers> MakeFileTransfers(const std::string& data_dir, UploadStore* uploads,
                                                 JobStore* store) {
  return std::make_unique<ArtifactTransfers>(data_dir, uploads, store);
}

}  // namespace finetuned
