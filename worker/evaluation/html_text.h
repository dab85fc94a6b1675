// Text and numbers for an HTML page that is also well-formed XML.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace finetuned {

// For element content and quoted attribute values alike: & < > " ' become references. What is no
// UTF-8 or no XML character (controls, U+FFFE, U+FFFF) becomes U+FFFD.
std::string EscapeHtml(std::string_view text);

// Cut at a character boundary to at most `max_bytes`, with a note of how much is left out.
std::string ShortenText(std::string_view text, size_t max_bytes);

std::string GroupedCount(int64_t count);  // 59,486
std::string ShortNumber(double value,
                        int digits = 4);  // 2.081, 2e-4, 12,400; "–" for what is not finite
std::string MeasuredNumber(
    double value);  // four digits, also where they are zeros: 2.450, 42.45, 12,400
std::string PercentChange(double before, double after);  // "−72.4 %"; "–" where it cannot be told
std::string BytesText(uint64_t bytes);                   // 3.31 GiB
std::string SecondsText(double seconds);                 // 4 min 02 s

}  // namespace finetuned
