#include "worker/text/aligned_text.h"

#include <algorithm>

namespace finetuned {

AlignedText AlignedText::Rewrite(const AlignedText& source) {
  AlignedText out;
  out.track_ = source.track_;
  out.rewritten_ = true;
  out.owned_.reserve(source.size() + source.size() / 8 + 8);
  return out;
}

Span AlignedText::OriginOf(uint32_t begin, uint32_t end) const {
  if (!rewritten_) return {base_ + begin, base_ + end};
  Span origin = origin_[begin];
  for (uint32_t i = begin + 1; i < end; ++i) {
    origin.begin = std::min(origin.begin, origin_[i].begin);
    origin.end = std::max(origin.end, origin_[i].end);
  }
  return origin;
}

AlignedText AlignedText::Slice(uint32_t begin, uint32_t end) const {
  if (!rewritten_) return AlignedText(view_.substr(begin, end - begin), base_ + begin, track_);
  AlignedText out = Rewrite(AlignedText());
  out.track_ = track_;
  out.AppendCopy(*this, begin, end);
  return out;
}

void AlignedText::AppendCopy(const AlignedText& source, uint32_t begin, uint32_t end) {
  owned_.append(source.text().substr(begin, end - begin));
  if (!track_) return;
  if (source.rewritten_) {
    origin_.insert(origin_.end(), source.origin_.begin() + begin, source.origin_.begin() + end);
  } else {
    for (uint32_t i = begin; i < end; ++i)
      origin_.push_back({source.base_ + i, source.base_ + i + 1});
  }
}

void AlignedText::AppendMapped(const AlignedText& source, uint32_t begin, uint32_t end,
                               std::string_view bytes) {
  owned_.append(bytes);
  if (track_) origin_.insert(origin_.end(), bytes.size(), source.OriginOf(begin, end));
}

}  // namespace finetuned
