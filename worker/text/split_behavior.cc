#include "worker/text/split_behavior.h"

#include <algorithm>

namespace finetuned {
namespace {

struct Part {
  Span span;
  bool delimiter;
};

// `span` as delimiters and the text between them, in order.
std::vector<Part> Parts(Span span, const std::vector<Span>& matches, bool invert) {
  std::vector<Part> parts;
  uint32_t at = span.begin;
  for (const Span& match : matches) {
    if (at != match.begin) parts.push_back({{at, match.begin}, invert});
    parts.push_back({match, !invert});
    at = match.end;
  }
  if (at != span.end) parts.push_back({{at, span.end}, invert});
  return parts;
}

}  // namespace

std::optional<SplitBehavior> ParseSplitBehavior(std::string_view name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return std::nullopt;
}

void SplitAtMatches(Span span, const std::vector<Span>& matches, SplitBehavior behavior,
                    bool invert, std::vector<Span>& out) {
  if (matches.empty() && !(behavior == SplitBehavior::kRemoved && invert)) {
    out.push_back(span);
    return;
  }
  std::vector<Part> parts = Parts(span, matches, invert);
  std::vector<Span> pieces;
  bool previous = false;  // whether the part before was a delimiter
  switch (behavior) {
    case SplitBehavior::kRemoved:
      for (const Part& part : parts) {
        if (!part.delimiter) pieces.push_back(part.span);
      }
      break;
    case SplitBehavior::kIsolated:
      for (const Part& part : parts) pieces.push_back(part.span);
      break;
    case SplitBehavior::kContiguous:
      for (const Part& part : parts) {
        if (part.delimiter == previous && !pieces.empty()) {
          pieces.back().end = part.span.end;
        } else {
          pieces.push_back(part.span);
        }
        previous = part.delimiter;
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Part& part : parts) {
        if (part.delimiter && !previous && !pieces.empty()) {
          pieces.back().end = part.span.end;
        } else {
          pieces.push_back(part.span);
        }
        previous = part.delimiter;
      }
      break;
    case SplitBehavior::kMergedWithNext:
      for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
        if (part->delimiter && !previous && !pieces.empty()) {
          pieces.back().begin = part->span.begin;
        } else {
          pieces.push_back(part->span);
        }
        previous = part->delimiter;
      }
      std::reverse(pieces.begin(), pieces.end());
      break;
  }
  for (const Span& piece : pieces) {
    if (piece.begin < piece.end) out.push_back(piece);
  }
}

}  // namespace finetuned
