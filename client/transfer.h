// Files to and from the server: resumable, verified by SHA-256, with progress on a terminal.
#pragma once

#include <string>

#include "client/cli.h"

namespace finetuned {

// Sends a file unless the server has it; goes on where an earlier try stopped. Gives
// "upload:<sha256>". Local errors as the Status of the file operation, the server's as theirs.
absl::StatusOr<std::string> Upload(Context& context, const std::string& path);

// Fetches one artifact to `directory`/artifact.path() through a ".part" file, which a later call
// goes on with. A file already there with the right hash is left alone. A lost connection is
// retried for a minute. INVALID_ARGUMENT when the artifact's path would leave the directory;
// DATA_LOSS when the bytes do not have the promised hash.
absl::Status Download(Context& context, const std::string& job_id, const v1::Artifact& artifact,
                      const std::string& directory);

}  // namespace finetuned
