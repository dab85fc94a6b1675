#include "worker/text/peer_json.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

namespace finetuned {
namespace {

// `text` is a number of JSON's grammar.
double PeerNumber(std::string_view text) {
  const bool negative = text.starts_with('-');
  if (negative) text.remove_prefix(1);
  uint64_t digits = 0;
  int64_t exponent = 0;
  bool full = false, fraction = false;  // full: further digits would not fit
  size_t i = 0;
  for (; i < text.size() && text[i] != 'e' && text[i] != 'E'; ++i) {
    if (text[i] == '.') {
      fraction = true;
      full = false;
      // Behind more digits than fit none of the fraction fits either.
      if (exponent > 0) full = true;
      continue;
    }
    const auto digit = static_cast<uint64_t>(text[i] - '0');
    full |= digits > (UINT64_MAX - digit) / 10;
    if (full) {
      exponent += !fraction;
    } else {
      digits = digits * 10 + digit;
      exponent -= fraction;
    }
  }
  if (i < text.size()) {
    const bool minus = text[i + 1] == '-';
    int64_t written = 0;
    for (++i; i < text.size(); ++i) {
      if (text[i] >= '0' && text[i] <= '9')
        written = std::min<int64_t>(written * 10 + (text[i] - '0'), INT32_MAX);
    }
    exponent += minus ? -written : written;
  }
  auto value = static_cast<double>(digits);
  while (value != 0) {
    if (std::llabs(exponent) <= 308) {
      const double power = std::stod("1e" + std::to_string(std::llabs(exponent)));
      value = exponent >= 0 ? value * power : value / power;
      break;
    }
    if (exponent >= 0) break;  // the peer refuses the file
    value /= 1e308;
    exponent += 308;
  }
  return negative ? -value : value;
}

// Builds the value as nlohmann does, but for fractions.
class PeerSax : public nlohmann::detail::json_sax_dom_parser<nlohmann::json> {
 public:
  using Base = nlohmann::detail::json_sax_dom_parser<nlohmann::json>;
  explicit PeerSax(nlohmann::json& root) : Base(root, /*allow_exceptions_=*/false) {}
  bool number_float(double, const std::string& text) {
    return Base::number_float(PeerNumber(text), text);
  }
};

}  // namespace

nlohmann::json ParsePeerJson(std::string_view text) {
  nlohmann::json value;
  PeerSax sax(value);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &sax))
    return nlohmann::json::value_t::discarded;
  return value;
}

}  // namespace finetuned
