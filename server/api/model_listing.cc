#include "server/api/model_listing.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;
constexpr int kDepth = 3;
constexpr size_t kMaxModels = 1000;
constexpr int kMaxFiles = 10000;

// Sizes of the files in one directory; links are followed, as a cache keeps its weights behind
// them.
uint64_t FileBytes(const fs::path& directory) {
  uint64_t bytes = 0;
  int files = 0;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (++files > kMaxFiles) break;
    if (entry.is_regular_file(error)) bytes += entry.file_size(error);
  }
  return bytes;
}

// "models--ORG--NAME/snapshots/REVISION" → "ORG/NAME"; other names stay.
std::string ModelName(const std::string& relative) {
  absl::string_view rest = relative;
  if (!absl::ConsumePrefix(&rest, "models--")) return relative;
  return absl::StrReplaceAll(std::string(rest.substr(0, rest.find('/'))), {{"--", "/"}});
}

void Walk(const fs::path& root, const fs::path& directory, int depth,
          std::map<std::string, v1::ModelEntry>& found) {
  std::error_code error;
  if (directory != root && fs::exists(directory / "config.json", error)) {
    const std::string name = ModelName(directory.lexically_relative(root).string());
    v1::ModelEntry& entry = found[name];
    entry.set_name(name);
    entry.set_path(directory.string());
    entry.set_size_bytes(FileBytes(directory));
    return;
  }
  if (depth == 0) return;
  for (const auto& child : fs::directory_iterator(directory, error)) {
    if (found.size() >= kMaxModels) return;
    if (child.is_directory(error) && !child.is_symlink(error))
      Walk(root, child.path(), depth - 1, found);
  }
}

}  // namespace

v1::ListModelsResponse ListModelsUnder(const std::vector<std::string>& roots) {
  std::map<std::string, v1::ModelEntry> found;
  for (const std::string& root : roots) Walk(root, root, kDepth, found);
  v1::ListModelsResponse response;
  for (auto& [name, entry] : found) *response.add_models() = std::move(entry);
  return response;
}

}  // namespace finetuned
