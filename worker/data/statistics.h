// Numbers that people see of a prepared dataset.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "finetuned/v1/types.pb.h"
#include "worker/data/pipeline.h"
#include "worker/data/token_file.h"

namespace finetuned {

// Nearest-rank percentiles; zeros for no values.
v1::LengthStatistics MakeLengthStatistics(std::vector<int64_t> values);

// Everything but packing, which depends on settings that the cached content does not.
v1::DatasetStatistics MakeStatistics(const PipelineCounts& counts, const TokenFile& tokens,
                                     const std::vector<uint32_t>& train,
                                     const std::vector<uint32_t>& validation);

// The notices of the counts in words: "merged_user_turns: 3" → "3 pairs of user turns in a row were
// merged".
std::vector<std::string> NoticesInWords(const Notes& notes);

// "3 records: 2 invalid_json (data.jsonl:1: …), 1 duplicate": the most frequent reasons with an
// example each.
std::string TopReasons(const PipelineCounts& counts);

}  // namespace finetuned
