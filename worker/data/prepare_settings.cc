#include "worker/data/prepare_settings.h"

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "proto/base/file_util.h"
#include "proto/base/sha256.h"
#include "proto/base/status_macros.h"
#include "proto/errors/rpc_errors.h"
#include "worker/data/cache_entry.h"
#include "worker/data/template_renderer.h"

namespace finetuned {
namespace {

using Json = nlohmann::ordered_json;

absl::Status Invalid(std::string message) {
  return WithReason(absl::InvalidArgumentError(message), "INVALID_SPEC");
}

// INVALID_ARGUMENT of another part, with the reason that marks errors of the configuration.
absl::Status AsInvalidSpec(const absl::Status& status) {
  return WithReason(status, "INVALID_SPEC");
}

SourceFile MakeSource(const std::string& path) {
  return {.path = path, .name = std::filesystem::path(path).filename().string()};
}

absl::Status CheckBuilt(const v1::Dataset& dataset) {
  const v1::Filters& filters = dataset.filters();
  const auto not_built = [](std::string_view key, std::string_view cure) {
    return absl::UnimplementedError(
        absl::StrCat(std::string(key), " is not built yet; ", std::string(cure)));
  };
  if (filters.near_duplicates())
    return not_built("dataset.filters.near_duplicates", "set it to false");
  if (filters.unfinished_responses())
    return not_built("dataset.filters.unfinished_responses", "set it to false");
  if (filters.language_mismatch())
    return not_built("dataset.filters.language_mismatch", "set it to false");
  if (filters.has_blocked_words()) return not_built("dataset.filters.blocked_words", "remove it");
  if (dataset.added_tokens_size() > 0) return not_built("dataset.added_tokens", "remove it");
  const std::string& method = dataset.split().method();
  if (!method.empty() && method != "random" && method != "file") {
    return not_built(absl::StrCat("dataset.split.method: ", method), "use random or file");
  }
  return absl::OkStatus();
}

absl::StatusOr<int32_t> SpecialId(const Tokenizer& tokenizer, const std::string& token,
                                  std::string_view name) {
  const std::optional<int32_t> id = token.empty() ? std::nullopt : tokenizer.TokenToId(token);
  if (id) return *id;
  return Invalid(absl::StrCat("model_name_or_path: the tokenizer is to add its ", std::string(name),
                              " token \"", token, "\", but has none of that name; correct ",
                              std::string(name), "_token in tokenizer_config.json"));
}

// BOS and EOS of conversations as the request says, of plain texts also as the post-processor has
// it.
absl::Status SetSpecialTokens(const PrepareRequest& request, PipelineOptions& options) {
  const Tokenizer& tokenizer = *request.tokenizer;
  options.chat.tokenizer = options.plain.tokenizer = &tokenizer;
  options.chat.train_on_inputs = request.spec.dataset().train_on_inputs();
  if (request.add_bos) {
    FT_ASSIGN_OR_RETURN(options.chat.bos_id, SpecialId(tokenizer, request.bos_token, "bos"));
  }
  if (request.add_eos) {
    FT_ASSIGN_OR_RETURN(options.chat.eos_id, SpecialId(tokenizer, request.eos_token, "eos"));
  }
  options.plain.bos_id = options.chat.bos_id;
  options.plain.eos_id = options.chat.eos_id;
  const std::vector<int32_t> bare = tokenizer.Encode("a", false),
                             full = tokenizer.Encode("a", true);
  if (full.size() > bare.size() && !bare.empty()) {
    if (options.plain.bos_id < 0 && full.front() != bare.front())
      options.plain.bos_id = full.front();
    if (options.plain.eos_id < 0 && full.back() != bare.back()) options.plain.eos_id = full.back();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> HashFile(const std::string& path, int64_t& done,
                                     const std::function<absl::Status(int64_t)>& step) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "re"),
                                                             &std::fclose);
  if (file == nullptr) return ErrnoStatus(errno, absl::StrCat("opening data file ", path));
  Sha256 hash;
  std::vector<char> buffer(1 << 20);
  while (true) {
    const size_t count = std::fread(buffer.data(), 1, buffer.size(), file.get());
    if (count == 0) break;
    hash.Update(buffer.data(), count);
    done += static_cast<int64_t>(count);
    FT_RETURN_IF_ERROR(step(done));
  }
  if (std::ferror(file.get())) return ErrnoStatus(errno, absl::StrCat("reading ", path));
  return hash.Finish();
}

}  // namespace

absl::StatusOr<PrepareSettings> PrepareSettings::From(const PrepareRequest& request) {
  const v1::Dataset& dataset = request.spec.dataset();
  FT_RETURN_IF_ERROR(CheckBuilt(dataset));
  PrepareSettings out;
  out.dataset_files = static_cast<size_t>(dataset.path_size());
  if (request.paths.empty() ||
      request.paths.size() != out.dataset_files + static_cast<size_t>(dataset.sources_size())) {
    return Invalid(absl::StrCat("dataset.path: ", request.paths.size(), " data files for ",
                                out.dataset_files, " paths and ", dataset.sources_size(),
                                " sources; name at least one data file"));
  }
  const auto shape_of = [](const std::string& name) { return ParseShape(name); };
  for (size_t i = 0; i < request.paths.size(); ++i) {
    SourceFile source = MakeSource(request.paths[i]);
    std::string format = dataset.format(), shape = dataset.shape();
    if (i >= out.dataset_files) {
      const v1::DatasetSource& own = dataset.sources(static_cast<int>(i - out.dataset_files));
      if (own.has_format()) format = own.format();
      if (own.has_shape()) shape = own.shape();
      if (own.has_limit()) source.limit = own.limit();
    }
    if (!format.empty()) source.format = format;
    absl::StatusOr<Shape> parsed = shape_of(shape);
    if (!parsed.ok()) return AsInvalidSpec(parsed.status());
    source.shape = *parsed;
    out.sources.push_back(std::move(source));
  }
  if (dataset.has_limit()) out.dataset_limit = dataset.limit();

  if (dataset.split().method() == "file") {
    if (request.validation_path.empty()) {
      return Invalid(
          "dataset.split.validation_path is missing; split.method: file needs a validation file");
    }
    out.validation = MakeSource(request.validation_path);
    out.validation->shape = out.sources.front().shape;
  } else {
    if (dataset.split().has_validation_fraction())
      out.validation_fraction = dataset.split().validation_fraction();
    if (!(out.validation_fraction >= 0 && out.validation_fraction < 1)) {
      return Invalid(absl::StrCat("dataset.split.validation_fraction: ", out.validation_fraction,
                                  "; allowed: 0 up to below 1"));
    }
  }
  out.split_seed = dataset.split().has_seed() ? dataset.split().seed()
                   : request.spec.has_seed()  ? request.spec.seed()
                                              : 42;
  if (request.spec.has_train_samples()) out.train_samples = request.spec.train_samples();

  PipelineOptions& options = out.pipeline;
  options.columns = Columns(dataset.columns().begin(), dataset.columns().end());
  if (absl::Status status = CheckColumns(options.columns); !status.ok())
    return AsInvalidSpec(status);
  options.system_prompt = dataset.system_prompt();
  if (dataset.filters().has_exact_duplicates())
    options.exact_duplicates = dataset.filters().exact_duplicates();
  options.filters = FilterOptions::FromSpec(dataset.filters());
  if (dataset.has_max_bad_fraction()) options.max_bad_fraction = dataset.max_bad_fraction();
  if (request.spec.has_max_seq_length()) options.length.max_tokens = request.spec.max_seq_length();
  absl::StatusOr<LengthPolicy> policy = ParseLengthPolicy(dataset.length().policy());
  if (!policy.ok()) return AsInvalidSpec(policy.status());
  options.length.policy = *policy;
  if (dataset.length().has_drop_oldest_turns())
    options.length.drop_oldest_turns = dataset.length().drop_oldest_turns();
  if (dataset.length().has_sentence_boundary_tokens()) {
    options.length.sentence_boundary_tokens = dataset.length().sentence_boundary_tokens();
  }
  if (dataset.filters().has_min_response_tokens()) {
    options.length.min_response_tokens = dataset.filters().min_response_tokens();
  }
  options.vocab_size = request.model_vocab_size;
  options.markers = ControlStrings(*request.tokenizer);
  FT_RETURN_IF_ERROR(SetSpecialTokens(request, options));
  return out;
}

absl::StatusOr<std::string> DescribeContent(const PrepareRequest& request,
                                            const PrepareSettings& settings,
                                            const std::function<absl::Status(int64_t)>& step) {
  int64_t done = 0;
  const auto describe = [&](const SourceFile& source) -> absl::StatusOr<Json> {
    FT_ASSIGN_OR_RETURN(const std::string sha256, HashFile(source.path, done, step));
    Json json = {{"sha256", sha256},
                 {"name", source.name},
                 {"format", source.format},
                 {"shape", ShapeName(source.shape)}};
    if (source.limit) json["limit"] = *source.limit;
    return json;
  };
  Json key = {{"format_version", kCacheFormatVersion}};
  key["sources"] = Json::array();
  for (const SourceFile& source : settings.sources) {
    FT_ASSIGN_OR_RETURN(Json json, describe(source));
    key["sources"].push_back(std::move(json));
  }
  if (settings.validation) {
    FT_ASSIGN_OR_RETURN(key["validation"], describe(*settings.validation));
  }
  const PipelineOptions& o = settings.pipeline;
  const auto optional = [](const std::optional<int64_t>& value) {
    return value ? Json(*value) : Json(nullptr);
  };
  key["dataset_files"] = settings.dataset_files;
  key["dataset_limit"] = optional(settings.dataset_limit);
  key["columns"] = o.columns;
  key["system_prompt"] = o.system_prompt;
  key["train_on_inputs"] = o.chat.train_on_inputs;
  key["exact_duplicates"] = o.exact_duplicates;
  key["filters"] = {o.filters.min_instruction_chars,
                    optional(o.filters.max_instruction_chars),
                    o.filters.min_response_chars,
                    optional(o.filters.max_response_chars),
                    o.filters.min_quality_score,
                    o.filters.encoding_damage,
                    o.filters.repetition};
  key["length"] = {o.length.max_tokens, static_cast<int>(o.length.policy),
                   o.length.drop_oldest_turns, o.length.sentence_boundary_tokens,
                   o.length.min_response_tokens};
  key["split"] = {settings.validation_fraction, settings.split_seed,
                  optional(settings.train_samples)};
  key["max_bad_fraction"] = o.max_bad_fraction;
  key["tokenizer_sha256"] = request.tokenizer_sha256;
  key["special_tokens"] = {request.bos_token, request.eos_token, request.pad_token,
                           request.unk_token, o.chat.bos_id,     o.chat.eos_id,
                           o.plain.bos_id,    o.plain.eos_id};
  key["vocab_size"] = request.model_vocab_size;
  if (request.chat_template != nullptr) {
    key["chat_template"] = request.chat_template->source();
    key["chat_template_name"] = request.chat_template->name();
    if (request.chat_template->source().find("strftime_now") != std::string::npos) {
      key["submit_time_unix"] = request.submit_time_unix;
    }
  }
  key["reference_samples"] = request.reference_samples;
  return key.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace finetuned
