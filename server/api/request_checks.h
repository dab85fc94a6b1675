// Shape of requests: sizes, counts, forms and ranges that every request must keep before anything
// looks at its meaning. The job's own keys are checked later, with their table (proto/spec).
//
// Threads: pure functions. All errors are INVALID_ARGUMENT with the field, its value and what is
// allowed.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "finetuned/v1/service.pb.h"

namespace finetuned {

// Limits of one request; the message as a whole is bounded by kMaxMessageBytes.
inline constexpr int kMaxMessageBytes = 4 << 20;
inline constexpr size_t kMaxStringBytes = 64 << 10;
inline constexpr int kMaxRepeated = 1000;
inline constexpr int kMaxMapEntries = 64;
inline constexpr size_t kMaxMetadataBytes = 16 << 10;
inline constexpr size_t kMaxChunkBytes = 1 << 20;

// Walks the whole message: strings up to kMaxStringBytes without NUL bytes (bytes fields are left
// alone), lists up to kMaxRepeated, maps up to kMaxMapEntries, numbers finite, enums known to this
// build.
absl::Status CheckShape(const google::protobuf::Message& request);

// 1 to 64 of A-Z a-z 0-9 _ -
absl::Status CheckJobId(const std::string& field, const std::string& job_id);
// 64 lower-case hex digits.
absl::Status CheckSha256(const std::string& field, const std::string& sha256);
absl::Status CheckRange(const std::string& field, int64_t value, int64_t min, int64_t max);

absl::Status CheckCreateJob(const v1::CreateJobRequest& request);
absl::Status CheckUpdateJob(const v1::UpdateJobRequest& request);
absl::Status CheckListJobs(const v1::ListJobsRequest& request);

}  // namespace finetuned
