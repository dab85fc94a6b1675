// Any bytes as a tokenizer file: refused, or a tokenizer whose two ways of encoding agree and which
// decodes.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "worker/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = finetuned::Tokenizer::FromBytes(bytes, "fuzz");
  if (!tokenizer.ok()) return 0;
  for (const std::string_view text :
       {std::string_view("ab <s>é e\u0301 1½ 水 \n\tab\xFF"), bytes.substr(0, 64)}) {
    const auto encoding = (*tokenizer)->EncodeWithOffsets(text, true);
    if (encoding.ids != (*tokenizer)->Encode(text, true)) std::abort();
    if (encoding.ids.size() != encoding.offsets.size()) std::abort();
    for (const auto& [begin, end] : encoding.offsets) {
      if (begin > end || end > text.size()) std::abort();
    }
    (*tokenizer)->Decode(encoding.ids, false);
  }
  return 0;
}
