#include "worker/job/stage_store.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {

using nlohmann::json;

std::string StageName(v1::Stage stage) { return absl::AsciiStrToLower(v1::Stage_Name(stage)); }

StageStore::StageStore(std::string job_dir) : directory_(std::move(job_dir) + "/stages") {}

std::string StageStore::PathOf(v1::Stage stage) const {
  return absl::StrCat(directory_, "/", StageName(stage), ".json");
}

std::optional<json> StageStore::Result(v1::Stage stage, const std::string& inputs_sha256) const {
  const absl::StatusOr<std::string> text = ReadFile(PathOf(stage));
  if (!text.ok()) return std::nullopt;
  const json parsed = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("result") || !parsed.contains("inputs_sha256")) return std::nullopt;
  if (parsed["inputs_sha256"] != json(inputs_sha256)) return std::nullopt;
  return parsed["result"];
}

absl::Status StageStore::Commit(v1::Stage stage, const std::string& inputs_sha256, const json& result) {
  FT_RETURN_IF_ERROR(MakeDirectories(directory_));
  const json entry = {{"inputs_sha256", inputs_sha256}, {"result", result}};
  return WriteFileAtomic(PathOf(stage), entry.dump(1));
}

absl::Status StageStore::InvalidateFrom(v1::Stage stage) {
  for (int s = stage; s <= v1::EXPORTING; ++s) {
    FT_RETURN_IF_ERROR(RemoveAll(PathOf(static_cast<v1::Stage>(s))));
  }
  return absl::OkStatus();
}

}  // namespace finetuned
