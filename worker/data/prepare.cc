// PrepareData and PreviewData: the stages in order. See README.md.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"
#include "worker/data/batches.h"
#include "worker/data/cache_entry.h"
#include "worker/data/content_hash.h"
#include "worker/data/pipeline.h"
#include "worker/data/prepare_settings.h"
#include "worker/data/prepared_data.h"
#include "worker/data/split.h"
#include "worker/data/statistics.h"
#include "worker/data/template_renderer.h"

namespace finetuned {
namespace {

using Json = nlohmann::ordered_json;

absl::Status InvalidData(std::string message) {
  return WithReason(absl::FailedPreconditionError(absl::StrCat("INVALID_DATA: ", message)),
                    "INVALID_DATA");
}

// Errors about files and formats are the user's configuration; a damaged file is bad data.
absl::Status WithSpecReason(absl::Status status) {
  if (absl::IsDataLoss(status)) return InvalidData(std::string(status.message()));
  if (absl::IsInvalidArgument(status) && ReasonOf(status).empty())
    return WithReason(status, "INVALID_SPEC");
  return status;
}

void Log(const PrepareRequest& request, v1::Level level, std::string text) {
  if (request.log) request.log(level, std::move(text));
}

Json ReferenceJson(const Conversation& conversation, const TemplateRenderer& renderer) {
  const std::vector<Turn> turns = renderer.TemplateTurns(conversation.turns);
  size_t last = turns.size();
  while (last > 0 && turns[last - 1].role != "assistant") --last;
  Json prompt = Json::array();
  for (size_t i = 0; i + 1 < last; ++i) prompt.push_back({turns[i].role, turns[i].content});
  return {{"sample_id", conversation.sample_id},
          {"prompt", prompt},
          {"reference", turns[last - 1].content}};
}

// Remembers the conversations that the split will put first on the validation side: those of the
// smallest ranks.
class ReferenceCandidates {
 public:
  explicit ReferenceCandidates(int wanted)
      : limit_(wanted <= 0 ? 0 : std::max<size_t>(64, 8 * static_cast<size_t>(wanted))) {}
  // `describe` is called only for a candidate.
  template <typename Describe>
  void Offer(uint64_t rank, uint32_t sample, const Describe& describe) {
    if (limit_ == 0 || (kept_.size() == limit_ && rank >= kept_.rbegin()->first)) return;
    kept_.emplace(rank, std::pair<uint32_t, Json>(sample, describe()));
    if (kept_.size() > limit_) kept_.erase(std::prev(kept_.end()));
  }
  // Up to `wanted` of those in `validation`, in its order.
  Json Take(const std::vector<uint32_t>& validation, int wanted) const {
    std::map<uint32_t, const Json*> by_sample;
    for (const auto& [rank, kept] : kept_) by_sample[kept.first] = &kept.second;
    Json out = Json::array();
    for (const uint32_t sample : validation) {
      if (static_cast<int>(out.size()) >= wanted) break;
      if (const auto found = by_sample.find(sample); found != by_sample.end())
        out.push_back(*found->second);
    }
    return out;
  }

 private:
  const size_t limit_;
  std::multimap<uint64_t, std::pair<uint32_t, Json>> kept_;
};

absl::Status CheckLosses(const PipelineCounts& counts, double max_bad_fraction,
                         const std::string& quarantine) {
  const std::string where =
      quarantine.empty() ? "" : absl::StrCat(" The lost records are in ", quarantine, ".");
  if (counts.records == 0) return InvalidData("the data files hold no records");
  if (counts.samples == 0) {
    const auto masked = counts.dropped.find("no_trained_token");
    if (masked != counts.dropped.end() && masked->second == counts.records) {
      return InvalidData(
          "every label is masked: the chat template leaves no token of the assistant to train on; "
          "set dataset.chat_template, or train_on_inputs: true");
    }
    return InvalidData(absl::StrCat("none of ", counts.records,
                                    " records can be used: ", TopReasons(counts), ".", where));
  }
  const double lost = static_cast<double>(counts.lost()) / static_cast<double>(counts.records);
  if (lost > max_bad_fraction) {
    return InvalidData(absl::StrFormat(
        "%d of %d records (%.1f %%) are lost, more than dataset.max_bad_fraction (%g) allows: "
        "%s.%s Repair them, switch the filter off, or raise "
        "dataset.max_bad_fraction.",
        counts.lost(), counts.records, lost * 100, max_bad_fraction, TopReasons(counts), where));
  }
  return absl::OkStatus();
}

// Builds one cache entry.
class Preparation {
 public:
  Preparation(const PrepareRequest& request, const PrepareSettings& settings,
              const TemplateRenderer& renderer)
      : request_(request),
        settings_(settings),
        renderer_(renderer),
        references_(request.reference_samples) {}

  absl::Status Build(const std::string& key, const std::string& key_text) {
    FT_ASSIGN_OR_RETURN(auto entry, CacheEntryBuilder::Create(request_.cache_dir, key));
    FT_ASSIGN_OR_RETURN(tokens_, TokenFileWriter::Create(entry->PathOf(kTokenFileName)));
    QuarantineWriter quarantine(absl::StrCat(request_.output_dir, "/", kQuarantineFileName));
    absl::Status status = ReadAll(quarantine);
    FT_RETURN_IF_ERROR(quarantine.Finish());
    FT_RETURN_IF_ERROR(status);
    FT_RETURN_IF_ERROR(tokens_->Finish());
    const SplitResult split = Split();
    FT_RETURN_IF_ERROR(entry->WriteSplit(split.train, split.validation));
    FT_ASSIGN_OR_RETURN(const auto file, TokenFile::Open(entry->PathOf(kTokenFileName)));
    FT_RETURN_IF_ERROR(entry->WriteMeta(Meta(*file, split, key_text, quarantine.count())));
    if (quarantine.count() > 0) {
      std::error_code error;
      std::filesystem::copy_file(quarantine.path(), entry->PathOf(kQuarantineFileName), error);
      if (error) return ErrnoStatus(error.value(), "copying the quarantine file to the cache");
    }
    return entry->Commit();
  }

 private:
  absl::Status ReadAll(QuarantineWriter& quarantine) {
    int64_t total_bytes = 0, bytes_before = 0;
    const auto size_of = [](const SourceFile& source) {
      std::error_code error;
      const uintmax_t size = std::filesystem::file_size(source.path, error);
      return error ? int64_t{0} : static_cast<int64_t>(size);
    };
    for (const SourceFile& source : settings_.sources) total_bytes += size_of(source);
    if (settings_.validation) total_bytes += size_of(*settings_.validation);

    Pipeline::Hooks hooks;
    hooks.sample = [this](const PipelineSample& sample) { return OnSample(sample); };
    hooks.cancelled = request_.cancelled;
    hooks.log = request_.log;
    if (request_.progress) {
      hooks.progress = [&](int64_t bytes) {
        request_.progress(bytes_before + bytes, total_bytes, "bytes");
      };
    }
    Pipeline pipeline(
        settings_.pipeline, [this](const Conversation& c) { return renderer_.Render(c); },
        &quarantine, std::move(hooks));
    if (settings_.validation) {
      FT_RETURN_IF_ERROR(pipeline.Run(*settings_.validation));
      bytes_before += size_of(*settings_.validation);
      pipeline.EndValidation();
      if (keys_.empty()) {
        return InvalidData(absl::StrCat("dataset.split.validation_path: no record of ",
                                        settings_.validation->path,
                                        " can be used: ", TopReasons(pipeline.counts())));
      }
      validation_samples_ = keys_.size();
    }
    int64_t taken = 0;
    for (size_t i = 0; i < settings_.sources.size(); ++i) {
      SourceFile source = settings_.sources[i];
      const int64_t before = pipeline.counts().records;
      if (i < settings_.dataset_files && settings_.dataset_limit) {
        if (taken >= *settings_.dataset_limit) continue;
        source.limit = *settings_.dataset_limit - taken;
      }
      FT_RETURN_IF_ERROR(pipeline.Run(source));
      taken += pipeline.counts().records - before;
      bytes_before += size_of(source);
    }
    counts_ = pipeline.counts();
    FT_RETURN_IF_ERROR(CheckLosses(counts_, settings_.pipeline.max_bad_fraction,
                                   quarantine.count() > 0 ? quarantine.path() : ""));
    if (keys_.size() == validation_samples_)
      return InvalidData("no record is left for training: " + TopReasons(counts_));
    return absl::OkStatus();
  }

  absl::Status OnSample(const PipelineSample& sample) {
    SplitKey key{.content = sample.content};
    if (!sample.conversation.conversation_id.empty()) {
      key.conversation = std::max<uint64_t>(1, HashText(sample.conversation.conversation_id).first);
    }
    const uint32_t index = static_cast<uint32_t>(keys_.size());
    keys_.push_back(key);
    if (!sample.conversation.plain_text) {
      const bool in_order = settings_.validation.has_value();
      references_.Offer(in_order ? index : SelectionRank(key, settings_.split_seed), index,
                        [&] { return ReferenceJson(sample.conversation, renderer_); });
    }
    return tokens_->Append(sample.sample.input_ids, sample.sample.trained,
                           sample.conversation.sample_id, sample.sample.response_tokens);
  }

  SplitResult Split() const {
    SplitResult split;
    if (settings_.validation) {
      for (uint32_t i = 0; i < keys_.size(); ++i)
        (i < validation_samples_ ? split.validation : split.train).push_back(i);
    } else {
      split = SplitRandomly(keys_, settings_.validation_fraction, settings_.split_seed);
    }
    if (settings_.train_samples) {
      split.train =
          CapSamples(keys_, std::move(split.train), *settings_.train_samples, settings_.split_seed);
    }
    return split;
  }

  std::string Meta(const TokenFile& file, const SplitResult& split, const std::string& key_text,
                   int64_t quarantined) const {
    v1::DatasetStatistics statistics = MakeStatistics(counts_, file, split.train, split.validation);
    if (request_.chat_template != nullptr) {
      statistics.set_chat_template(request_.chat_template->name());
    }
    statistics.set_overlap(CountOverlap(keys_, split));
    if (split.validation.empty() && settings_.validation_fraction > 0) {
      statistics.add_warnings("there is no validation side: all records belong to one group");
    }
    std::string statistics_json;
    if (!google::protobuf::util::MessageToJsonString(statistics, &statistics_json).ok()) {
      statistics_json = "{}";  // not reachable: every field of the message has a JSON form
    }
    Sha256 content;
    content.Update(tokens_->content_sha256());
    for (const std::vector<uint32_t>* side : {&split.train, &split.validation}) {
      const uint64_t count = side->size();
      content.Update(&count, sizeof count);
      content.Update(side->data(), side->size() * sizeof(uint32_t));
    }
    Json meta;
    meta["statistics"] = Json::parse(statistics_json);
    meta["content_sha256"] = content.Finish();
    meta["references"] = references_.Take(split.validation, request_.reference_samples);
    meta["quarantined"] = quarantined;
    meta["examples"] = counts_.examples;
    if (counts_.scored > 0) {
      const double count = static_cast<double>(counts_.scored), mean = counts_.quality_sum / count;
      meta["quality"] = {
          {"records", counts_.scored},
          {"mean", mean},
          {"spread", std::sqrt(std::max(0.0, counts_.quality_square_sum / count - mean * mean))}};
    }
    meta["key"] = Json::parse(key_text);
    return meta.dump(1, ' ', false, Json::error_handler_t::replace);
  }

  const PrepareRequest& request_;
  const PrepareSettings& settings_;
  const TemplateRenderer& renderer_;
  ReferenceCandidates references_;
  std::unique_ptr<TokenFileWriter> tokens_;
  std::vector<SplitKey> keys_;     // one for each sample
  size_t validation_samples_ = 0;  // the first so many, with a validation file
  PipelineCounts counts_;
};

// Statistics and files of this job from an entry.
absl::StatusOr<PreparedData> Load(const PrepareRequest& request, CacheEntry entry) {
  PreparedData out;
  const Json meta = Json::parse(entry.meta_json, nullptr, /*allow_exceptions=*/false);
  if (!meta.is_object() || !google::protobuf::util::JsonStringToMessage(
                                meta.value("statistics", Json::object()).dump(), &out.statistics)
                                .ok()) {
    return absl::DataLossError("the statistics of the cache entry cannot be read");
  }
  out.content_sha256 = meta.value("content_sha256", "");
  for (const Json& reference : meta.value("references", Json::array())) {
    ReferenceSample sample{.sample_id = reference.value("sample_id", ""),
                           .reference = reference.value("reference", "")};
    for (const Json& turn : reference.at("prompt"))
      sample.prompt.push_back({turn.at(0), turn.at(1)});
    out.references.push_back(std::move(sample));
  }
  if (request.spec.packing() || !request.spec.has_packing()) {
    std::vector<int32_t> lengths;
    for (const uint32_t i : entry.train)
      lengths.push_back(static_cast<int32_t>(entry.tokens->index()[i].tokens));
    BatchOptions batches{
        .packing = true,
        .max_seq_length = request.spec.has_max_seq_length() ? request.spec.max_seq_length() : 2048,
        .seed = request.spec.has_seed() ? request.spec.seed() : 42};
    const EpochBatches epoch = MakeTrainBatches(lengths, batches, 0);
    out.statistics.set_packed_rows(epoch.rows);
    out.statistics.set_packing_efficiency(epoch.packing_efficiency);
  }
  out.train = MakeTokenStore(entry.tokens, entry.train);
  out.validation = MakeTokenStore(entry.tokens, entry.validation);

  Json statistics = meta.value("statistics", Json::object());
  statistics["packedRows"] = out.statistics.packed_rows();
  statistics["packingEfficiency"] = out.statistics.packing_efficiency();
  statistics["contentSha256"] = out.content_sha256;
  statistics["examples"] = meta.value("examples", Json::object());
  if (meta.contains("quality")) statistics["quality"] = meta["quality"];
  FT_RETURN_IF_ERROR(WriteFileAtomic(absl::StrCat(request.output_dir, "/statistics.json"),
                                     statistics.dump(2) + "\n"));
  if (meta.value("quarantined", 0) > 0) {
    out.quarantine_path = absl::StrCat(request.output_dir, "/", kQuarantineFileName);
    std::error_code error;
    std::filesystem::copy_file(absl::StrCat(entry.directory, "/", kQuarantineFileName),
                               out.quarantine_path,
                               std::filesystem::copy_options::overwrite_existing, error);
    if (error == std::errc::no_such_file_or_directory)
      return absl::DataLossError("the quarantine file of the cache entry is missing");
    if (error) return ErrnoStatus(error.value(), absl::StrCat("writing ", out.quarantine_path));
  }
  return out;
}

absl::StatusOr<PreparedData> OpenAndLoad(const PrepareRequest& request, const std::string& key) {
  FT_ASSIGN_OR_RETURN(CacheEntry entry, OpenCacheEntry(request.cache_dir, key));
  return Load(request, std::move(entry));
}

absl::StatusOr<PreparedData> Prepare(const PrepareRequest& request) {
  FT_ASSIGN_OR_RETURN(const PrepareSettings settings, PrepareSettings::From(request));
  FT_ASSIGN_OR_RETURN(const auto renderer, TemplateRenderer::Create(request));
  FT_RETURN_IF_ERROR(MakeDirectories(request.output_dir));
  // Formats first: an empty or unreadable file is told before gigabytes are hashed.
  for (const SourceFile& source : settings.sources)
    FT_RETURN_IF_ERROR(DetectFormat(source.path, source.format).status());
  if (settings.validation) {
    FT_RETURN_IF_ERROR(
        DetectFormat(settings.validation->path, settings.validation->format).status());
  }
  FT_ASSIGN_OR_RETURN(const std::string key_text, DescribeContent(request, settings, [&](int64_t) {
                        return request.cancelled && request.cancelled()
                                   ? absl::CancelledError("dataset preparation was cancelled")
                                   : absl::OkStatus();
                      }));
  const std::string key = Sha256Hex(key_text);

  absl::StatusOr<PreparedData> cached = OpenAndLoad(request, key);
  if (cached.ok()) {
    Log(request, v1::INFO,
        absl::StrCat("Tokenized data found in the cache (", key.substr(0, 12),
                     "); nothing is prepared again."));
    return cached;
  }
  if (absl::IsDataLoss(cached.status())) {
    Log(request, v1::WARNING,
        absl::StrCat("A damaged cache entry is built again: ",
                     std::string(cached.status().message())));
    FT_RETURN_IF_ERROR(RemoveCacheEntry(request.cache_dir, key));
  } else if (!absl::IsNotFound(cached.status())) {
    return cached.status();
  }
  FT_RETURN_IF_ERROR(Preparation(request, settings, *renderer).Build(key, key_text));
  return OpenAndLoad(request, key);
}

absl::StatusOr<v1::PreviewDatasetResponse> Preview(const PrepareRequest& request, int count) {
  FT_ASSIGN_OR_RETURN(const PrepareSettings settings, PrepareSettings::From(request));
  FT_ASSIGN_OR_RETURN(const auto renderer, TemplateRenderer::Create(request));
  v1::PreviewDatasetResponse out;
  Pipeline::Hooks hooks;
  hooks.cancelled = request.cancelled;
  hooks.log = request.log;
  hooks.sample = [&](const PipelineSample& sample) -> absl::Status {
    v1::PreviewSample& shown = *out.add_samples();
    const Conversation& conversation = sample.conversation;
    shown.set_sample_id(conversation.sample_id);
    for (const Turn& turn : conversation.turns) {
      v1::PreviewTurn& to = *shown.add_turns();
      to.set_role(turn.role);
      to.set_content(turn.extra_json.empty() ? turn.content
                                             : absl::StrCat(turn.content, turn.extra_json));
    }
    if (conversation.plain_text) {
      shown.set_text(conversation.turns.front().content);
    } else {
      FT_ASSIGN_OR_RETURN(RenderedText rendered, renderer->Render(conversation));
      shown.set_text(std::move(rendered.text));
    }
    for (size_t i = 0; i < sample.sample.input_ids.size(); ++i) {
      shown.add_input_ids(sample.sample.input_ids[i]);
      shown.add_trained(sample.sample.trained[i] != 0);
    }
    return out.samples_size() >= count ? StopReading() : absl::OkStatus();
  };
  Pipeline pipeline(
      settings.pipeline, [&](const Conversation& c) { return renderer->Render(c); }, nullptr,
      std::move(hooks));
  for (const SourceFile& source : settings.sources) {
    if (out.samples_size() >= count) break;
    FT_RETURN_IF_ERROR(pipeline.Run(source));
  }
  const PipelineCounts& counts = pipeline.counts();
  if (out.samples_size() == 0) FT_RETURN_IF_ERROR(CheckLosses(counts, 1, ""));
  v1::DatasetStatistics& statistics = *out.mutable_statistics();
  statistics.set_records(counts.records);
  statistics.set_truncated(counts.truncated);
  if (request.chat_template != nullptr) {
    statistics.set_chat_template(request.chat_template->name());
  }
  for (const auto& [reason, lost] : counts.dropped) (*statistics.mutable_dropped())[reason] = lost;
  for (const std::string& shape : counts.shapes) {
    statistics.set_shape(
        statistics.shape().empty() ? shape : absl::StrCat(statistics.shape(), ", ", shape));
  }
  for (std::string& notice : NoticesInWords(counts.notes))
    statistics.add_warnings(std::move(notice));
  return out;
}

}  // namespace

absl::StatusOr<PreparedData> PrepareData(const PrepareRequest& request) {
  absl::StatusOr<PreparedData> result = Prepare(request);
  if (!result.ok()) return WithSpecReason(result.status());
  return result;
}

absl::StatusOr<v1::PreviewDatasetResponse> PreviewData(const PrepareRequest& request, int count) {
  absl::StatusOr<v1::PreviewDatasetResponse> result = Preview(request, count);
  if (!result.ok()) return WithSpecReason(result.status());
  return result;
}

}  // namespace finetuned
