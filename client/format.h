// Numbers, tables and curves for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/timestamp.pb.h"

namespace finetuned {

// 1536 → "1.5 KiB".
std::string FormatBytes(uint64_t bytes);
// 3723 → "1h02m", 75 → "1m15s", 3.25 → "3.2s"; "–" when negative or not finite.
std::string FormatSeconds(double seconds);
// 12345 → "12.3k".
std::string FormatCount(double count);
// Four significant digits: "2.0134", "0.0001" → "1e-04" for rates.
std::string FormatLoss(double loss);
// Local time "2026-01-31 12:00:05"; "–" when unset.
std::string FormatTime(const google::protobuf::Timestamp& time);
// Local time of day "12:00:05".
std::string FormatClock(const google::protobuf::Timestamp& time);

// Columns a terminal needs for UTF-8 text: one for each code point, none for escape sequences and
// combining marks.
size_t DisplayWidth(std::string_view text);
// Cut to `width` columns, with … at the end when something is missing. Escape sequences are not
// cut.
std::string Truncate(std::string_view text, size_t width);
// Control characters (also escape sequences of a hostile model's answer) become visible text;
// newlines stay unless `one_line`, where they become spaces.
std::string Printable(std::string_view text, bool one_line);
// Lines of at most `width` columns, broken at spaces where there are any.
std::vector<std::string> Wrap(std::string_view text, size_t width);

// A curve of block characters, one for each of at most `width` buckets (means), scaled between its
// minimum and maximum. Values that are not finite are left out; empty for no values.
std::string Sparkline(const std::vector<double>& values, size_t width);

// Left-aligned columns two spaces apart; the header is the first row.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace finetuned
