// The artifacts' folder as the transfers need it: uploads go to the UploadStore and are noted in
// the job store, downloads are read below the job's artifact directory.
//
// Threads: as FileTransfers; every method blocks on disk.
#pragma once

#include <functional>
#include <string>

#include "server/api/transfer.h"
#include "server/artifacts/upload_store.h"
#include "server/store/job_store.h"

namespace finetuned {

class ArtifactFiles : public FileTransfers {
 public:
  // Not owned; `job_directory` maps a job's id to its directory, which holds artifacts/.
  ArtifactFiles(UploadStore* uploads, JobStore* store,
                std::function<std::string(const std::string&)> job_directory)
      : uploads_(uploads), store_(store), job_directory_(std::move(job_directory)) {}

  absl::StatusOr<v1::QueryUploadResponse> Query(const std::string& sha256) override;
  absl::StatusOr<std::unique_ptr<Upload>> OpenUpload(const v1::UploadHeader& header) override;
  absl::StatusOr<std::unique_ptr<Download>> OpenArtifact(const std::string& job_id,
                                                         const std::string& path) override;

 private:
  UploadStore* const uploads_;
  JobStore* const store_;
  const std::function<std::string(const std::string&)> job_directory_;
};

}  // namespace finetuned
