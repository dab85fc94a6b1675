#include "worker/data/statistics.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

namespace finetuned {

v1::LengthStatistics MakeLengthStatistics(std::vector<int64_t> values) {
  v1::LengthStatistics out;
  if (values.empty()) return out;
  std::sort(values.begin(), values.end());
  const auto percentile = [&](int64_t percent) {
    const int64_t count = static_cast<int64_t>(values.size());
    return values[std::max<int64_t>((count * percent + 99) / 100 - 1, 0)];
  };
  out.set_mean(static_cast<double>(std::accumulate(values.begin(), values.end(), int64_t{0})) /
               static_cast<double>(values.size()));
  out.set_p50(percentile(50));
  out.set_p95(percentile(95));
  out.set_max(values.back());
  return out;
}

v1::DatasetStatistics MakeStatistics(const PipelineCounts& counts, const TokenFile& tokens,
                                     const std::vector<uint32_t>& train,
                                     const std::vector<uint32_t>& validation) {
  v1::DatasetStatistics out;
  out.set_records(counts.records);
  out.set_truncated(counts.truncated);
  out.set_train_samples(static_cast<int64_t>(train.size()));
  out.set_validation_samples(static_cast<int64_t>(validation.size()));
  for (const auto& [reason, count] : counts.dropped) (*out.mutable_dropped())[reason] = count;
  std::string shapes;
  for (const std::string& shape : counts.shapes)
    absl::StrAppend(&shapes, shapes.empty() ? "" : ", ", shape);
  out.set_shape(shapes);

  std::vector<int64_t> total, prompt, response;
  int64_t train_tokens = 0, validation_tokens = 0, trained_tokens = 0;
  for (const bool training : {true, false}) {
    for (const uint32_t i : training ? train : validation) {
      const TokenIndexEntry& entry = tokens.index()[i];
      total.push_back(entry.tokens);
      response.push_back(entry.response);
      prompt.push_back(entry.tokens - entry.response);
      (training ? train_tokens : validation_tokens) += entry.tokens;
      if (training) trained_tokens += entry.trained;
    }
  }
  out.set_train_tokens(train_tokens);
  out.set_validation_tokens(validation_tokens);
  out.set_trained_tokens(trained_tokens);
  *out.mutable_total_tokens() = MakeLengthStatistics(std::move(total));
  *out.mutable_prompt_tokens() = MakeLengthStatistics(std::move(prompt));
  *out.mutable_response_tokens() = MakeLengthStatistics(std::move(response));
  for (std::string& notice : NoticesInWords(counts.notes)) out.add_warnings(std::move(notice));
  return out;
}

std::vector<std::string> NoticesInWords(const Notes& notes) {
  static constexpr std::pair<std::string_view, std::string_view> kWords[] = {
      {"merged_user_turns", "user turns were joined to the user turn before them"},
      {"merged_system_turns", "system turns were joined to the system turn before them"},
      {"trailing_turns", "turns after the last assistant turn were left out"},
      {"template_markers", "records hold control strings of chat templates in their content"},
      {"duplicate_keys", "records hold a key twice; the last one was taken"},
      {"other_shape",
       "records have another shape than most of their file; they were read by their own"},
      {"bad_quality_score",
       "records have a quality_score that is no number from 0 to 1; it was ignored"},
      {"bad_history", "entries of \"history\" are no pair of texts; they were left out"},
      {"bad_tools", "records have \"tools\" that are no list; they were ignored"},
      {"bad_sample_id", "records have a sample_id that is no text; a content hash was taken"},
      {"bad_conversation_id", "records have a conversation_id that is no text; it was ignored"},
      {"bad_source", "records have a source that is no text; the file's name was taken"},
  };
  std::vector<std::string> out;
  for (const auto& [note, count] : notes) {
    std::string words = note;
    for (const auto& [name, text] : kWords) {
      if (name == note) words = text;
    }
    out.push_back(absl::StrCat(count, " ", words));
  }
  return out;
}

std::string TopReasons(const PipelineCounts& counts) {
  std::vector<std::pair<int64_t, std::string>> reasons;
  for (const auto& [reason, count] : counts.dropped) reasons.emplace_back(-count, reason);
  std::sort(reasons.begin(), reasons.end());
  if (reasons.size() > 4) reasons.resize(4);
  std::string out;
  for (const auto& [negative, reason] : reasons) {
    absl::StrAppend(&out, out.empty() ? "" : "; ", -negative, " ", reason);
    const auto examples = counts.examples.find(reason);
    if (examples != counts.examples.end() && !examples->second.empty()) {
      absl::StrAppend(&out, " (", examples->second.front(), ")");
    }
  }
  return out;
}

}  // namespace finetuned
