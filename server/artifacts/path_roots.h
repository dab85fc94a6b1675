// PathRoots: turns a path or name in a job's spec into a real path below the configured roots, or
// refuses it.
//
// Allowed: a path relative to a root; an absolute path below a root; "upload:SHA256" (data); a
// model's name, "org/name", also in the Hugging Face cache layout (models--org--name/snapshots/REV;
// refs/main says which, else the only one). Links are followed, but only to targets below a root of
// the same kind. Refused (PERMISSION_DENIED): "..", absolute paths elsewhere (whether or not
// something is there), links that lead out, also those directly inside a model's directory.
// INVALID_ARGUMENT: empty, too long, or with a NUL. NOT_FOUND: the text says where it was looked
// for and what to do.
//
// Any thread; blocks on disk (a few stats). The answer holds for the moment: who starts a job later
// asks again.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/artifacts/upload_store.h"

namespace finetuned {

class PathRoots {
 public:
  // Roots that do not exist (yet) hold nothing. `uploads` may be null; it is not owned.
  PathRoots(std::vector<std::string> model_roots, std::vector<std::string> data_roots,
            UploadStore* uploads);

  // A directory, or a regular file (GGUF).
  absl::StatusOr<std::string> Model(const std::string& path) const;
  // A regular file.
  absl::StatusOr<std::string> Data(const std::string& path) const;

 private:
  const std::vector<std::string> model_roots_;
  const std::vector<std::string> data_roots_;
  UploadStore* const uploads_;
};

}  // namespace finetuned
