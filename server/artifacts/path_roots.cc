#include "server/artifacts/path_roots.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxPathBytes = 4000;
constexpr char kUploadPrefix[] = "upload:";

// What differs between models and data.
struct Kind {
  const char* noun;  // "model"
  const char* flag;  // "--model-root"
  const std::vector<std::string>& roots;
};

std::string RootsText(const Kind& kind) {
  if (kind.roots.empty()) return absl::StrCat("no ", kind.flag, " is configured");
  return absl::StrCat(kind.noun, " roots: ", absl::StrJoin(kind.roots, ", "));
}

// Real path, links resolved; nothing when there is nothing.
std::optional<std::string> RealPath(const std::string& path) {
  char* resolved = realpath(path.c_str(), nullptr);
  if (resolved == nullptr) return std::nullopt;
  std::string text(resolved);
  free(resolved);
  return text;
}

// Both normal and absolute.
bool IsBelow(const std::string& path, const std::string& root) {
  return path == root || root == "/" || absl::StartsWith(path, root + "/");
}

std::string WithoutSlash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

bool IsBelowReal(const std::string& real, const Kind& kind) {
  for (const std::string& root : kind.roots) {
    const std::optional<std::string> real_root = RealPath(root);
    if (real_root.has_value() && IsBelow(real, *real_root)) return true;
  }
  return false;
}

absl::Status Outside(const std::string& path, const Kind& kind, const std::string& why) {
  return absl::PermissionDeniedError(absl::StrCat(
      kind.noun, " path '", path, "' ", why, "; ", RootsText(kind),
      "; move or copy it below one, or start the server with ", kind.flag, " for its directory"));
}

absl::Status CheckForm(const std::string& path, const Kind& kind) {
  if (path.empty())
    return absl::InvalidArgumentError(absl::StrCat(kind.noun, " path is empty; ", RootsText(kind)));
  if (path.size() > kMaxPathBytes || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(kind.noun, " path has ", path.size(),
                                                   " bytes or a NUL; allowed: at most ",
                                                   kMaxPathBytes, " bytes without NUL"));
  }
  for (const auto part : absl::StrSplit(path, '/')) {
    if (part == "..") return Outside(path, kind, "contains '..', which is refused");
  }
  return absl::OkStatus();
}

// The snapshot directory of a model in the Hugging Face cache layout below `root`; nothing when
// there is none.
std::optional<std::string> CachedSnapshot(const std::string& root, const std::string& name) {
  const std::string base =
      absl::StrCat(root, "/models--", absl::StrReplaceAll(name, {{"/", "--"}}));
  if (const auto revision = ReadFile(base + "/refs/main"); revision.ok()) {
    const std::string trimmed(absl::StripAsciiWhitespace(*revision));
    const std::string path = absl::StrCat(base, "/snapshots/", trimmed);
    // The file's text is no more trusted than a spec's.
    if (!trimmed.empty() && trimmed.find('/') == std::string::npos && trimmed != ".." &&
        RealPath(path).has_value()) {
      return path;
    }
  }
  std::vector<std::string> snapshots;
  std::error_code error;
  for (fs::directory_iterator it(base + "/snapshots", error), end; !error && it != end;
       it.increment(error)) {
    snapshots.push_back(it->path().string());
  }
  if (snapshots.size() != 1) return std::nullopt;
  return snapshots.front();
}

// Places where `path` may be, best first.
std::vector<std::string> Candidates(const std::string& path, const Kind& kind, bool model_name) {
  if (path[0] == '/') return {path};
  std::vector<std::string> candidates;
  for (const std::string& root : kind.roots) {
    candidates.push_back(absl::StrCat(root, "/", path));
    if (!model_name) continue;
    if (auto snapshot = CachedSnapshot(root, path); snapshot.has_value())
      candidates.push_back(*snapshot);
  }
  return candidates;
}

absl::StatusOr<std::string> Resolve(const std::string& path, const Kind& kind, bool model_name) {
  FT_RETURN_IF_ERROR(CheckForm(path, kind));
  if (path[0] == '/') {
    // By its text alone, so that the answer does not tell what exists outside the roots.
    const std::string normal = WithoutSlash(fs::path(path).lexically_normal().string());
    const bool below =
        std::any_of(kind.roots.begin(), kind.roots.end(), [&](const std::string& root) {
          const std::optional<std::string> real_root = RealPath(root);
          return IsBelow(normal, root) || (real_root.has_value() && IsBelow(normal, *real_root));
        });
    if (!below) return Outside(path, kind, "is outside the roots");
  }
  for (const std::string& candidate : Candidates(path, kind, model_name)) {
    const std::optional<std::string> real = RealPath(candidate);
    if (!real.has_value()) {
      // A link whose target is missing or unreadable may point anywhere; it is no more than
      // nothing.
      continue;
    }
    if (!IsBelowReal(*real, kind)) return Outside(path, kind, "leads out of the roots by a link");
    return *real;
  }
  return absl::NotFoundError(absl::StrCat(
      kind.noun, " '", path, "' is not there; ", RootsText(kind),
      kind.roots.empty() ? absl::StrCat("; start the server with ", kind.flag, " DIRECTORY")
      : model_name && absl::StrContains(path, "/") && path[0] != '/'
          ? absl::StrCat("; fetch it with: huggingface-cli download ", path, " --local-dir ",
                         kind.roots.front(), "/", path)
          : absl::StrCat("; put it below one of them")));
}

// Links directly inside a model's directory must stay below the roots: the worker follows them.
absl::Status CheckLinksInside(const std::string& directory, const std::string& path,
                              const Kind& kind) {
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (!it->is_symlink(ignored)) continue;
    const std::optional<std::string> target = RealPath(it->path().string());
    if (target.has_value() && !IsBelowReal(*target, kind)) {
      return Outside(path, kind,
                     absl::StrCat("holds the link '", it->path().filename().string(),
                                  "', which leads out of the roots"));
    }
  }
  if (error)
    return ErrnoStatus(error.value(),
                       absl::StrCat("cannot list ", kind.noun, " directory ", directory));
  return absl::OkStatus();
}

std::vector<std::string> Normalized(std::vector<std::string> roots) {
  for (std::string& root : roots) {
    std::error_code error;
    const fs::path absolute = fs::absolute(root, error);
    if (!error) root = WithoutSlash(absolute.lexically_normal().string());
  }
  return roots;
}

}  // namespace

PathRoots::PathRoots(std::vector<std::string> model_roots, std::vector<std::string> data_roots,
                     UploadStore* uploads)
    : model_roots_(Normalized(std::move(model_roots))),
      data_roots_(Normalized(std::move(data_roots))),
      uploads_(uploads) {}

absl::StatusOr<std::string> PathRoots::Model(const std::string& path) const {
  const Kind kind{"model", "--model-root", model_roots_};
  FT_ASSIGN_OR_RETURN(const std::string real, Resolve(path, kind, /*model_name=*/true));
  struct stat info;
  if (stat(real.c_str(), &info) != 0)
    return ErrnoStatus(errno, absl::StrCat("cannot stat model ", real));
  if (S_ISDIR(info.st_mode)) {
    FT_RETURN_IF_ERROR(CheckLinksInside(real, path, kind));
  } else if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("model '", path, "' is neither a directory nor a file"));
  }
  return real;
}

absl::StatusOr<std::string> PathRoots::Data(const std::string& path) const {
  const Kind kind{"data", "--data-root", data_roots_};
  if (absl::StartsWith(path, kUploadPrefix)) {
    if (uploads_ == nullptr)
      return absl::NotFoundError("this server keeps no uploads; name a file below a data root");
    return uploads_->Find(path.substr(sizeof(kUploadPrefix) - 1));
  }
  FT_ASSIGN_OR_RETURN(const std::string real, Resolve(path, kind, /*model_name=*/false));
  struct stat info;
  if (stat(real.c_str(), &info) != 0)
    return ErrnoStatus(errno, absl::StrCat("cannot stat data file ", real));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("data path '", path,
                     "' is a directory or special file; name a file, or several as a list"));
  }
  return real;
}

}  // namespace finetuned
