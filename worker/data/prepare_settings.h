// A prepare request taken apart: sources, pipeline options, split, and the key of what they
// determine.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/pipeline.h"
#include "worker/data/prepared_data.h"

namespace finetuned {

struct PrepareSettings {
  std::vector<SourceFile> sources;
  std::optional<int64_t> dataset_limit;  // over the files of dataset.path together
  size_t dataset_files = 0;              // how many of `sources` these are
  std::optional<SourceFile> validation;  // split.method: file
  PipelineOptions pipeline;
  double validation_fraction = 0.1;
  uint64_t split_seed = 42;
  std::optional<int64_t> train_samples;

  // INVALID_ARGUMENT or UNIMPLEMENTED, naming the key.
  static absl::StatusOr<PrepareSettings> From(const PrepareRequest& request);
};

// A JSON text with everything that prepared content depends on; its SHA-256 is the cache key. Reads
// all data files; `step` is called after every megabyte with the bytes read so far and ends the
// reading when it is not OK.
absl::StatusOr<std::string> DescribeContent(const PrepareRequest& request,
                                            const PrepareSettings& settings,
                                            const std::function<absl::Status(int64_t)>& step);

}  // namespace finetuned
