// Text on its way through normalizers and pre-tokenizers, which remembers where each byte came
// from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace finetuned {

// Byte range [begin, end). 32 bits: one text is at most 4 GB.
struct Span {
  uint32_t begin = 0, end = 0;
  friend bool operator==(const Span&, const Span&) = default;
};

// Well-formed UTF-8 and, when tracked, for every byte the range of original bytes it stands for.
//
// As long as nothing was changed it is a view of the original (which must outlive it) and costs
// nothing. A step that changes something builds a new text: `AlignedText out =
// AlignedText::Rewrite(in)`, then Append*() front to back.
class AlignedText {
 public:
  AlignedText() = default;
  // A view of original bytes [base, base + text.size()).
  AlignedText(std::string_view text, uint32_t base, bool track)
      : view_(text), base_(base), track_(track) {}

  static AlignedText Rewrite(const AlignedText& source);

  std::string_view text() const { return rewritten_ ? std::string_view(owned_) : view_; }
  uint32_t size() const { return static_cast<uint32_t>(text().size()); }

  // Original bytes that [begin, end) stands for. REQUIRES: tracked or unchanged, begin < end <=
  // size().
  Span OriginOf(uint32_t begin, uint32_t end) const;

  // The part [begin, end) as a text of its own.
  AlignedText Slice(uint32_t begin, uint32_t end) const;

  // Building a rewritten text: copies [begin, end) of `source`, or adds `bytes` that stand for
  // [begin, end) of it.
  void AppendCopy(const AlignedText& source, uint32_t begin, uint32_t end);
  void AppendMapped(const AlignedText& source, uint32_t begin, uint32_t end,
                    std::string_view bytes);

 private:
  std::string_view view_;
  uint32_t base_ = 0;
  bool track_ = false;
  bool rewritten_ = false;
  std::string owned_;
  std::vector<Span> origin_;  // one per byte of owned_ when tracked
};

// A text and the stretches of it that are pre-tokens, in order. No span is empty.
struct PreTokens {
  AlignedText text;
  std::vector<Span> spans;
  // Bytes of the original's first character: what begins among them is at its beginning.
  uint32_t first_character = 0;
};

}  // namespace finetuned
