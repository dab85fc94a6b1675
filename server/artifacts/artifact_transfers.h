// The API's uploads and downloads over UploadStore, the jobs' artifact directories and the job
// store.
#pragma once

#include <memory>
#include <string>

#include "server/api/transfer.h"
#include "server/artifacts/upload_store.h"

namespace finetuned {

class JobStore;

// Artifacts of a job are below <data_dir>/jobs/<job_id>/artifacts; the hash of one that the job's
// result lists is taken from there, of any other it is computed when it is opened. A finished
// upload is also recorded in the job store. Nothing is owned. Every call blocks on disk and must
// not come from a thread of the store.
std::unique_ptr<FileTransfers> MakeFileTransfers(const std::string& data_dir, UploadStore* uploads,
                                                 JobStore* store);

}  // namespace finetuned
