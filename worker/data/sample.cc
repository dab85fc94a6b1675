#include "worker/data/sample.h"

#include <algorithm>
#include <numeric>

namespace finetuned {

TokenizedSample TokenizeRendered(const RenderedText& rendered, const TokenizeOptions& options) {
  const Tokenizer::Encoding encoding =
      options.tokenizer->EncodeWithOffsets(rendered.text, /*add_special_tokens=*/false);
  TokenizedSample out;
  std::vector<uint8_t> response;
  out.input_ids.reserve(encoding.ids.size() + 2);
  response.reserve(encoding.ids.size() + 2);

  const bool add_bos =
      options.bos_id >= 0 && (encoding.ids.empty() || encoding.ids.front() != options.bos_id);
  if (add_bos) {
    out.input_ids.push_back(options.bos_id);
    response.push_back(0);
  }
  size_t span = 0;
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    const auto [begin, token_end] = encoding.offsets[i];
    const size_t end =
        std::max(token_end, begin + 1);  // a token of no bytes belongs where it stands
    while (span < rendered.responses.size() && rendered.responses[span].end <= begin) ++span;
    out.input_ids.push_back(encoding.ids[i]);
    response.push_back(span < rendered.responses.size() && rendered.responses[span].begin < end);
  }
  if (options.eos_id >= 0 && (out.input_ids.empty() || out.input_ids.back() != options.eos_id)) {
    out.input_ids.push_back(options.eos_id);
    response.push_back(!rendered.responses.empty() &&
                       rendered.responses.back().end == rendered.text.size());
  }
  out.response_tokens = std::accumulate(response.begin(), response.end(), 0u);
  out.trained = std::move(response);
  if (options.train_on_inputs) std::fill(out.trained.begin(), out.trained.end(), 1);
  if (!out.trained.empty()) out.trained.front() = 0;
  out.trained_tokens = std::accumulate(out.trained.begin(), out.trained.end(), 0u);
  return out;
}

}  // namespace finetuned
