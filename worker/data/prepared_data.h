// Dataset preparation: files → records → conversations → rendered text → tokens with a loss mask →
// a memory-mapped token cache, split into training and validation. See README.md for the stages and
// what each rejects.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "finetuned/v1/job_spec.pb.h"
#include "finetuned/v1/service.pb.h"
#include "finetuned/v1/types.pb.h"
#include "worker/data/token_store.h"
#include "worker/text/chat_template.h"
#include "worker/text/tokenizer.h"

namespace finetuned {

// A validation conversation in words, for the samples shown base / tuned / reference.
struct ReferenceSample {
  std::string sample_id;
  std::vector<Message> prompt;  // everything before the last assistant turn
  std::string reference;        // the last assistant turn
};

struct PreparedData {
  std::shared_ptr<const TokenStore> train;
  std::shared_ptr<const TokenStore> validation;  // empty store when there is no validation side
  std::vector<ReferenceSample> references;       // first `reference_samples` of the validation side
  v1::DatasetStatistics statistics;
  // SHA-256 over the cached content: what training depends on. Part of checkpoints.
  std::string content_sha256;
  // Files of quarantined records (JSONL: {"reason", "file", "line", "record"}); empty when there
  // are none.
  std::string quarantine_path;
};

struct PrepareRequest {
  v1::JobSpec spec;  // resolved
  // Absolute: one for each dataset.path, then one for each dataset.sources[i].path.
  std::vector<std::string> paths;
  std::string validation_path;  // absolute; empty unless split.method is file
  const Tokenizer* tokenizer = nullptr;
  // Null when the model has none and none was named: only plain texts (shape text) can be prepared.
  const ChatTemplate* chat_template = nullptr;
  // Special tokens of tokenizer_config.json, as templates see them.
  std::string bos_token, eos_token, pad_token, unk_token;
  // True when the tokenizer's post-processor or configuration adds BOS (EOS) and the template does
  // not write it.
  bool add_bos = false, add_eos = false;
  int64_t submit_time_unix = 0;  // strftime_now
  int64_t model_vocab_size = 0;  // ids at or above it are an error
  std::string tokenizer_sha256;
  std::string
      cache_dir;  // shared between jobs; the entry's key covers everything the content depends on
  // Gets statistics.json (the proto as JSON, with examples of each reason and the quality scores)
  // and quarantine.jsonl of this job; the latter also when preparation fails.
  std::string output_dir;
  int reference_samples = 8;
  // unit "records" or "bytes"; may be called from the calling thread often.
  std::function<void(int64_t done, int64_t total, std::string_view unit)> progress;
  std::function<bool()> cancelled;  // asked at least once a second
  std::function<void(v1::Level, std::string)> log;
};

// INVALID_ARGUMENT with the offending key for a configuration error; FAILED_PRECONDITION
// ("INVALID_DATA": empty result, too many bad records) with the top reasons; CANCELLED;
// RESOURCE_EXHAUSTED for a full disk.
absl::StatusOr<PreparedData> PrepareData(const PrepareRequest& request);

// The first `count` samples as parsed, rendered and tokenized; nothing is written.
absl::StatusOr<v1::PreviewDatasetResponse> PreviewData(const PrepareRequest& request, int count);

}  // namespace finetuned
