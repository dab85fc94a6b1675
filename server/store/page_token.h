// Page tokens of ListJobs: where the last page ended, bound to the order and the filter it was made
// for.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace finetuned {

struct PagePosition {
  int64_t rank = 0;         // −priority of the last job of the page
  int64_t create_time = 0;  // its time, Unix nanoseconds
  std::string job_id;
};

// `context` is any text that two requests share exactly when one may go on where the other ended
// (order and filter).
std::string EncodePageToken(const PagePosition& position, const std::string& context);

// INVALID_ARGUMENT for a text that this server did not make, or made for another order or filter.
absl::StatusOr<PagePosition> DecodePageToken(const std::string& token, const std::string& context);

}  // namespace finetuned
