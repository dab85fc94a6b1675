// Entries of the token cache: one directory for each key, immutable once it is there. Format:
// CACHE_FORMAT.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"
#include "worker/data/token_file.h"

namespace finetuned {

// Part of every key, so that a change of the format or of what preparation does makes new entries.
inline constexpr int kCacheFormatVersion = 1;

inline constexpr char kTokenFileName[] = "samples.tokens";
inline constexpr char kSplitFileName[] = "split.bin";
inline constexpr char kMetaFileName[] = "meta.json";
inline constexpr char kQuarantineFileName[] = "quarantine.jsonl";

struct CacheEntry {
  std::shared_ptr<const TokenFile> tokens;
  std::vector<uint32_t> train, validation;  // samples of the token file, in the order of the stores
  std::string meta_json;
  std::string directory;
};

// NOT_FOUND when there is no such entry; DATA_LOSS with the reason when it is damaged.
absl::StatusOr<CacheEntry> OpenCacheEntry(const std::string& cache_dir, const std::string& key);

// Takes a damaged entry away. Those who have it mapped keep it.
absl::Status RemoveCacheEntry(const std::string& cache_dir, const std::string& key);

// Builds an entry in a directory of its own and renames it into place; several processes may build
// the same key at once, and the first to finish wins. A builder that is destroyed before Commit
// removes what it wrote; what a killed one left is removed by the next.
class CacheEntryBuilder {
 public:
  static absl::StatusOr<std::unique_ptr<CacheEntryBuilder>> Create(const std::string& cache_dir,
                                                                   const std::string& key);
  ~CacheEntryBuilder();

  std::string PathOf(const std::string& file) const { return directory_ + "/" + file; }
  absl::Status WriteSplit(const std::vector<uint32_t>& train,
                          const std::vector<uint32_t>& validation);
  absl::Status WriteMeta(const std::string& json);
  // All files are complete and synced. Afterwards OpenCacheEntry finds the entry.
  absl::Status Commit();

 private:
  CacheEntryBuilder(std::string cache_dir, std::string key, std::string directory, int lock_fd);
  const std::string cache_dir_, key_, directory_;
  const int lock_fd_;  // held for the builder's life: tells the living from the dead
};

}  // namespace finetuned
