#include "worker/job/history.h"

#include <cerrno>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "worker/job/proto_json.h"

namespace finetuned {
namespace {

using nlohmann::json;

// Lines up to the first damaged one (a torn last line of a killed process).
template <typename M>
void ReadLines(const std::string& path, std::vector<M>* out) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return;
  for (const absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    M message;
    if (!MessageFromJson(json::parse(line, nullptr, /*allow_exceptions=*/false), &message).ok()) return;
    out->push_back(std::move(message));
  }
}

template <typename M>
absl::Status AddLine(const std::string& path, const M& message, std::vector<M>* all) {
  bool replaced = false;
  while (!all->empty() && all->back().step() >= message.step()) {
    all->pop_back();
    replaced = true;
  }
  all->push_back(message);
  if (replaced) {
    std::string text;
    for (const M& entry : *all) text += MessageToJsonText(entry) + "\n";
    return WriteFileAtomic(path, text);
  }
  std::FILE* file = std::fopen(path.c_str(), "ab");
  if (file == nullptr) return ErrnoStatus(errno, absl::StrCat("cannot open ", path));
  const std::string line = MessageToJsonText(message) + "\n";
  const bool written = std::fwrite(line.data(), 1, line.size(), file) == line.size();
  const bool closed = std::fclose(file) == 0;
  if (!written || !closed) return ErrnoStatus(errno, absl::StrCat("cannot append to ", path));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<History>> History::Open(std::string metrics_path, std::string evaluations_path) {
  auto history = std::unique_ptr<History>(new History(std::move(metrics_path), std::move(evaluations_path)));
  ReadLines(history->metrics_path_, &history->metrics_);
  ReadLines(history->evaluations_path_, &history->evaluations_);
  // A torn line must not stay in front of what is appended.
  std::string text;
  for (const auto& entry : history->metrics_) text += MessageToJsonText(entry) + "\n";
  FT_RETURN_IF_ERROR(WriteFileAtomic(history->metrics_path_, text));
  text.clear();
  for (const auto& entry : history->evaluations_) text += MessageToJsonText(entry) + "\n";
  FT_RETURN_IF_ERROR(WriteFileAtomic(history->evaluations_path_, text));
  return history;
}

absl::Status History::Add(const v1::TrainingMetrics& metrics) { return AddLine(metrics_path_, metrics, &metrics_); }
absl::Status History::Add(const v1::EvaluationResult& evaluation) {
  return AddLine(evaluations_path_, evaluation, &evaluations_);
}

}  // namespace finetuned
