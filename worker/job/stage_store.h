// Durable results of a job's stages: <job_dir>/stages/<stage>.json = {"inputs_sha256": …, "result": …}. A stage whose
// file is there, with the hash of the inputs it would have now, is done; a new attempt goes on behind it.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "finetuned/v1/types.pb.h"
#include "nlohmann/json.hpp"

namespace finetuned {

class StageStore {
 public:
  explicit StageStore(std::string job_dir);

  // Result of the stage if it is done with these inputs. A damaged file counts as not done.
  std::optional<nlohmann::json> Result(v1::Stage stage, const std::string& inputs_sha256) const;
  // Written atomically and fsynced. RESOURCE_EXHAUSTED on a full disk.
  absl::Status Commit(v1::Stage stage, const std::string& inputs_sha256, const nlohmann::json& result);
  // Forgets this stage and all after it (rerun --from-stage).
  absl::Status InvalidateFrom(v1::Stage stage);

 private:
  std::string PathOf(v1::Stage stage) const;
  std::string directory_;
};

// "preparing_data", as the API and people spell it.
std::string StageName(v1::Stage stage);

}  // namespace finetuned
