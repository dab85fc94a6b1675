#include "worker/data/pipeline.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"
#include "worker/data/content_hash.h"

namespace finetuned {
namespace {

constexpr int kShapeSample = 200;        // records that vote on the shape of a file
constexpr int64_t kEarlyRecords = 1000;  // records after which systemic damage is warned of
constexpr auto kTickInterval = std::chrono::milliseconds(200);

// Collects votes for the shape of a file and the keys that were met.
class ShapeVote : public RecordHandler {
 public:
  explicit ShapeVote(const Columns& columns) : columns_(columns) {}
  absl::Status OnRecord(const Value& record, int64_t) override {
    ++votes_[DetectShape(record, columns_)];
    for (const std::string_view key : record.keys) {
      if (keys_.size() < 20) keys_.emplace(key);
    }
    return ++records_ < kShapeSample ? absl::OkStatus() : StopReading();
  }
  absl::Status OnBadRecord(std::string_view, std::string_view, int64_t, std::string_view) override {
    // A file of nothing but broken lines is not read to its end for this.
    return ++broken_ < kShapeSample * 5 ? absl::OkStatus() : StopReading();
  }
  // The most frequent known shape.
  Shape winner() const {
    Shape best = Shape::kUnknown;
    int most = 0;
    for (const auto& [shape, count] : votes_) {
      if (shape != Shape::kUnknown && count > most) {
        most = count;
        best = shape;
      }
    }
    return best;
  }
  int records() const { return records_; }
  std::string keys() const {
    std::string joined;
    for (const std::string& key : keys_) absl::StrAppend(&joined, joined.empty() ? "" : ", ", key);
    return joined;
  }

 private:
  const Columns& columns_;
  std::map<Shape, int> votes_;
  std::set<std::string> keys_;
  int records_ = 0, broken_ = 0;
};

}  // namespace

int64_t PipelineCounts::lost() const {
  int64_t total = 0;
  for (const auto& [reason, count] : dropped) total += count;
  return total;
}

class Pipeline::Handler : public RecordHandler {
 public:
  Handler(Pipeline& pipeline, const SourceFile& source, Shape shape)
      : pipeline_(pipeline), source_(source), shape_(shape) {}
  absl::Status OnRecord(const Value& record, int64_t line) override {
    FT_RETURN_IF_ERROR(pipeline_.Tick(position));
    FT_RETURN_IF_ERROR(Count());
    return pipeline_.OnRecord(source_, shape_, record, line);
  }
  absl::Status OnBadRecord(std::string_view reason, std::string_view detail, int64_t line,
                           std::string_view raw) override {
    FT_RETURN_IF_ERROR(pipeline_.Tick(position));
    FT_RETURN_IF_ERROR(Count());
    return pipeline_.Drop(reason, detail, source_, line, "", raw);
  }

  int64_t position = 0;

 private:
  absl::Status Count() {
    if (source_.limit && taken_ >= *source_.limit) return StopReading();
    ++taken_;
    ++pipeline_.counts_.records;
    return absl::OkStatus();
  }
  Pipeline& pipeline_;
  const SourceFile& source_;
  const Shape shape_;
  int64_t taken_ = 0;
};

Pipeline::Pipeline(PipelineOptions options, RenderConversation render, QuarantineWriter* quarantine,
                   Hooks hooks)
    : options_(std::move(options)),
      render_(std::move(render)),
      quarantine_(quarantine),
      hooks_(std::move(hooks)) {
  for (const std::string& marker : options_.markers) {
    if (!marker.empty()) markers_[static_cast<unsigned char>(marker[0])].push_back(marker);
  }
}

void Pipeline::EndValidation() { validation_ = std::exchange(seen_, SeenTexts()); }

absl::Status Pipeline::Tick(int64_t file_position) {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_tick_ < kTickInterval) return absl::OkStatus();
  last_tick_ = now;
  if (hooks_.cancelled && hooks_.cancelled())
    return absl::CancelledError("dataset preparation was cancelled");
  if (hooks_.progress) hooks_.progress(file_position);
  return absl::OkStatus();
}

absl::StatusOr<Shape> Pipeline::DetectSourceShape(const SourceFile& source, const Format& format) {
  if (source.shape != Shape::kUnknown) return source.shape;
  ShapeVote vote(options_.columns);
  absl::Status status = ReadRecords(source.path, format, vote);
  if (!status.ok() && !absl::IsDataLoss(status)) return status;
  const Shape winner = vote.winner();
  // A file without a single readable record is reported by its reasons, not by its shape.
  if (winner != Shape::kUnknown || vote.records() == 0) return winner;
  return WithReason(absl::InvalidArgumentError(
                        absl::StrCat("dataset.shape: the records of ", source.path,
                                     " fit no known shape; their keys are: ", vote.keys(),
                                     ". Name the columns, as in dataset.columns: {instruction: ",
                                     vote.keys().substr(0, vote.keys().find(',')),
                                     ", response: …}, or set dataset.shape to one of instruction, "
                                     "alpaca, messages, sharegpt, prompt_completion, text")),
                    "INVALID_SPEC");
}

absl::Status Pipeline::Run(const SourceFile& source) {
  FT_ASSIGN_OR_RETURN(const Format* format, DetectFormat(source.path, source.format));
  FT_ASSIGN_OR_RETURN(const Shape shape, DetectSourceShape(source, *format));
  if (shape != Shape::kUnknown) counts_.shapes.emplace(ShapeName(shape));
  Handler handler(*this, source, shape);
  absl::Status status = ReadRecords(source.path, *format, handler, &handler.position);
  FT_RETURN_IF_ERROR(status);
  if (hooks_.progress) hooks_.progress(handler.position);
  return absl::OkStatus();
}

absl::Status Pipeline::Drop(std::string_view reason, std::string_view detail,
                            const SourceFile& source, int64_t line, std::string_view record_json,
                            std::string_view raw) {
  const std::string name(reason);
  ++counts_.dropped[name];
  std::vector<std::string>& examples = counts_.examples[name];
  if (examples.size() < 3) {
    examples.push_back(
        absl::StrCat(source.name, ":", line, ": ", std::string(detail.substr(0, 200))));
  }
  // Duplicates need no repair; they would only double the data.
  if (quarantine_ != nullptr && name != "duplicate" && name != "in_validation") {
    FT_RETURN_IF_ERROR(quarantine_->Add(reason, detail, source.name, line, record_json, raw));
  }
  if (counts_.records == kEarlyRecords && hooks_.log) {
    const double lost = static_cast<double>(counts_.lost()) / kEarlyRecords;
    if (lost > options_.max_bad_fraction) {
      hooks_.log(
          v1::WARNING,
          absl::StrFormat("%.0f %% of the first %d records are lost; the last for \"%s\" (%s)",
                          lost * 100, kEarlyRecords, name, examples.front()));
    }
  }
  return absl::OkStatus();
}

absl::Status Pipeline::OnRecord(const SourceFile& source, Shape shape, const Value& record,
                                int64_t line) {
  absl::Status status = Process(source, shape, record);
  // BadRecords are INVALID_ARGUMENT without details; errors of the configuration carry a reason.
  if (status.ok() || !absl::IsInvalidArgument(status) || !ReasonOf(status).empty()) return status;
  return Drop(ReasonOfBadRecord(status), DetailOfBadRecord(status), source, line, ToJson(record),
              "");
}

absl::Status Pipeline::Process(const SourceFile& source, Shape shape, const Value& record) {
  absl::StatusOr<Conversation> mapped = MapRecord(record, shape, options_.columns, counts_.notes);
  if (!mapped.ok() && source.shape == Shape::kUnknown) {
    // A record of another shape than most of its file still says clearly what it is.
    const Shape own = DetectShape(record, options_.columns);
    if (own != Shape::kUnknown && own != shape) {
      mapped = MapRecord(record, own, options_.columns, counts_.notes);
      if (mapped.ok()) {
        ++counts_.notes["other_shape"];
        counts_.shapes.emplace(ShapeName(own));
      }
    }
  }
  FT_RETURN_IF_ERROR(mapped.status());
  Conversation& conversation = *mapped;
  if (conversation.source.empty()) conversation.source = source.name;
  if (!options_.system_prompt.empty() && !conversation.plain_text &&
      (conversation.turns.empty() || conversation.turns.front().role != "system")) {
    conversation.turns.insert(conversation.turns.begin(),
                              Turn{"system", options_.system_prompt, ""});
  }
  FT_RETURN_IF_ERROR(CheckRoles(conversation, counts_.notes));
  FT_RETURN_IF_ERROR(CheckFilters(conversation, options_.filters));

  const std::string key = DuplicateKey(conversation);
  const uint64_t content = HashText(key).first;
  if (validation_.Contains(key))
    return BadRecord("in_validation", "the same text is in the validation file");
  if (!seen_.Add(key) && options_.exact_duplicates)
    return BadRecord("duplicate", "the same text came before");
  if (conversation.sample_id.empty())
    conversation.sample_id = absl::StrCat(absl::Hex(content, absl::kZeroPad16));

  for (const Turn& turn : conversation.turns) {
    if (HoldsMarker(turn.content)) {
      ++counts_.notes["template_markers"];
      break;
    }
  }
  FT_ASSIGN_OR_RETURN(const FittedSample fitted,
                      FitSample(conversation, options_.length, *options_.chat.tokenizer,
                                [this](const Conversation& c) { return Tokenize(c); }));
  counts_.truncated += fitted.truncated;
  if (conversation.quality_score) {
    ++counts_.scored;
    counts_.quality_sum += *conversation.quality_score;
    counts_.quality_square_sum += *conversation.quality_score * *conversation.quality_score;
  }
  ++counts_.samples;
  return hooks_.sample(PipelineSample{conversation, fitted.sample, content});
}

absl::StatusOr<TokenizedSample> Pipeline::Tokenize(const Conversation& conversation) const {
  RenderedText rendered;
  if (conversation.plain_text) {
    rendered.text = conversation.turns.front().content;
    rendered.responses.push_back({0, rendered.text.size()});
  } else {
    FT_ASSIGN_OR_RETURN(rendered, render_(conversation));
  }
  TokenizedSample sample =
      TokenizeRendered(rendered, conversation.plain_text ? options_.plain : options_.chat);
  if (options_.vocab_size > 0) {
    for (const int32_t id : sample.input_ids) {
      if (id < options_.vocab_size) continue;
      return WithReason(absl::InvalidArgumentError(absl::StrCat(
                            "model_name_or_path: the tokenizer gives id ", id, " (\"",
                            options_.chat.tokenizer->IdToToken(id).value_or("?"),
                            "\"), but the model has only ", options_.vocab_size,
                            " token embeddings; use the tokenizer that belongs to the model")),
                        "INVALID_SPEC");
    }
  }
  return sample;
}

bool Pipeline::HoldsMarker(std::string_view text) const {
  for (size_t i = 0; i < text.size(); ++i) {
    for (const std::string_view marker : markers_[static_cast<unsigned char>(text[i])]) {
      if (text.substr(i, marker.size()) == marker) return true;
    }
  }
  return false;
}

}  // namespace finetuned
