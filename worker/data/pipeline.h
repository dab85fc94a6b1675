// From records of data files to tokenized samples: everything between reading and storing, one
// record at a time.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "finetuned/v1/types.pb.h"
#include "worker/data/conversation.h"
#include "worker/data/filters.h"
#include "worker/data/format.h"
#include "worker/data/length_policy.h"
#include "worker/data/quarantine.h"
#include "worker/data/sample.h"
#include "worker/data/shapes.h"

namespace finetuned {

struct SourceFile {
  std::string path;
  std::string name;  // file name without folders: the default `source` of its records
  std::string format = "auto";
  Shape shape = Shape::kUnknown;  // kUnknown: detected
  std::optional<int64_t> limit;   // records read at most
};

struct PipelineOptions {
  Columns columns;
  std::string system_prompt;  // for conversations that have no system turn; empty: none
  bool exact_duplicates = true;
  FilterOptions filters;
  LengthOptions length;
  TokenizeOptions chat, plain;  // how rendered conversations and plain texts become tokens
  int64_t vocab_size = 0;       // ids at or above it are an error; 0: not checked
  double max_bad_fraction = 0.5;
  std::vector<std::string> markers;  // control strings that content should not hold
};

// Conversation (never plain text) → text. BadRecord when the template fails on it.
using RenderConversation = std::function<absl::StatusOr<RenderedText>(const Conversation&)>;

// A record that came through. `content` is the hash of its DuplicateKey.
struct PipelineSample {
  const Conversation& conversation;
  const TokenizedSample& sample;
  uint64_t content;
};

struct PipelineCounts {
  int64_t records = 0;  // read, good and bad
  int64_t samples = 0;
  int64_t truncated = 0;
  std::map<std::string, int64_t> dropped;  // by reason
  std::map<std::string, std::vector<std::string>>
      examples;  // by reason: "file:line: detail", at most 3
  Notes notes;
  std::set<std::string> shapes;
  int64_t scored = 0;  // records with a quality_score, and its sums
  double quality_sum = 0, quality_square_sum = 0;

  int64_t lost() const;
};

class Pipeline {
 public:
  struct Hooks {
    std::function<absl::Status(const PipelineSample&)>
        sample;                                       // StopReading() ends the run in good order
    std::function<bool()> cancelled;                  // may be empty
    std::function<void(int64_t bytes)> progress;      // position in the file on disk; may be empty
    std::function<void(v1::Level, std::string)> log;  // may be empty
  };

  // `quarantine` may be null. All referenced things outlive the pipeline.
  Pipeline(PipelineOptions options, RenderConversation render, QuarantineWriter* quarantine,
           Hooks hooks);

  // Reads one file to its end. INVALID_ARGUMENT: format or shape not recognised, ids beyond the
  // vocabulary; DATA_LOSS: damaged compressed data; CANCELLED.
  absl::Status Run(const SourceFile& source);

  // From here on records equal to one seen so far are dropped as "in_validation" (the validation
  // file came first).
  void EndValidation();

  const PipelineCounts& counts() const { return counts_; }

 private:
  class Handler;
  absl::StatusOr<Shape> DetectSourceShape(const SourceFile& source, const Format& format);
  absl::Status OnRecord(const SourceFile& source, Shape shape, const Value& record, int64_t line);
  absl::Status Process(const SourceFile& source, Shape shape, const Value& record);
  absl::StatusOr<TokenizedSample> Tokenize(const Conversation& conversation) const;
  absl::Status Drop(std::string_view reason, std::string_view detail, const SourceFile& source,
                    int64_t line, std::string_view record_json, std::string_view raw);
  absl::Status Tick(int64_t file_position);
  bool HoldsMarker(std::string_view text) const;

  const PipelineOptions options_;
  const RenderConversation render_;
  QuarantineWriter* const quarantine_;
  const Hooks hooks_;
  std::array<std::vector<std::string_view>, 256> markers_;  // by first byte
  SeenTexts seen_, validation_;
  PipelineCounts counts_;
  std::chrono::steady_clock::time_point last_tick_{};
};

}  // namespace finetuned
