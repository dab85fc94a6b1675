#include "server/store/page_token.h"

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/base/sha256.h"

namespace finetuned {
namespace {

constexpr char kVersion[] = "p1";
constexpr size_t kDigestChars = 16;
constexpr size_t kMaxTokenChars = 1024;

// Tells an altered token and one of another query apart from a good one; a mistake guard, not a
// secret.
std::string Digest(const std::string& body, const std::string& context) {
  return Sha256Hex(absl::StrCat(body, "\n", context)).substr(0, kDigestChars);
}

}  // namespace

std::string EncodePageToken(const PagePosition& position, const std::string& context) {
  const std::string body =
      absl::StrCat(kVersion, " ", position.rank, " ", position.create_time, " ", position.job_id);
  return absl::WebSafeBase64Escape(absl::StrCat(Digest(body, context), " ", body));
}

absl::StatusOr<PagePosition> DecodePageToken(const std::string& token, const std::string& context) {
  const absl::Status invalid = absl::InvalidArgumentError(
      "page_token is not one that this query returned; pass next_page_token of the previous page "
      "unchanged, with the "
      "same filter and order_by, or leave it empty to start again");
  std::string text;
  if (token.size() > kMaxTokenChars || !absl::WebSafeBase64Unescape(token, &text)) return invalid;
  if (text.size() <= kDigestChars || text[kDigestChars] != ' ') return invalid;
  const std::string body = text.substr(kDigestChars + 1);
  if (text.substr(0, kDigestChars) != Digest(body, context)) return invalid;
  const std::vector<std::string> parts = absl::StrSplit(body, absl::MaxSplits(' ', 3));
  PagePosition position;
  if (parts.size() != 4 || parts[0] != kVersion || !absl::SimpleAtoi(parts[1], &position.rank) ||
      !absl::SimpleAtoi(parts[2], &position.create_time)) {
    return invalid;
  }
  position.job_id = parts[3];
  return position;
}

}  // namespace finetuned
