// JSON with the numbers that Hugging Face's parser reads.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace finetuned {

// The value, discarded when `text` is not well-formed. Fractions are not correctly rounded but as
// Rust's serde_json has them (digits as an integer, then one multiplication or division by a power
// of ten): with other scores Unigram would choose otherwise between ways of almost equal score.
nlohmann::json ParsePeerJson(std::string_view text);

}  // namespace finetuned
