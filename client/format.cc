#include "client/format.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace finetuned {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// Length of the escape sequence at `at` (ESC [ … letter), or 0.
size_t EscapeLength(std::string_view text, size_t at) {
  if (text[at] != '\x1b' || at + 1 >= text.size() || text[at + 1] != '[') return 0;
  size_t end = at + 2;
  while (end < text.size() && !(text[end] >= '@' && text[end] <= '~')) ++end;
  return std::min(end + 1, text.size()) - at;
}

std::string LocalTime(const google::protobuf::Timestamp& time, const char* format) {
  if (time.seconds() == 0) return "–";
  const std::time_t seconds = time.seconds();
  std::tm local;
  if (localtime_r(&seconds, &local) == nullptr) return "–";
  char buffer[64];
  return std::string(buffer, std::strftime(buffer, sizeof(buffer), format, &local));
}

}  // namespace

std::string FormatBytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 6) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrCat(bytes, " B") : absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatSeconds(double seconds) {
  if (!(seconds >= 0) || seconds > 1e10) return "–";
  if (seconds < 60) return absl::StrFormat(seconds < 10 ? "%.1fs" : "%.0fs", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return absl::StrFormat("%dm%02ds", whole / 60, whole % 60);
  if (whole < 48 * 3600) return absl::StrFormat("%dh%02dm", whole / 3600, whole / 60 % 60);
  return absl::StrFormat("%dd%02dh", whole / 86400, whole / 3600 % 24);
}

std::string FormatCount(double count) {
  if (!std::isfinite(count)) return "–";
  if (std::abs(count) < 1000) {
    return count == std::floor(count) ? absl::StrFormat("%.0f", count)
                                      : absl::StrFormat("%.1f", count);
  }
  if (std::abs(count) < 1e6) return absl::StrFormat("%.1fk", count / 1e3);
  if (std::abs(count) < 1e9) return absl::StrFormat("%.1fM", count / 1e6);
  return absl::StrFormat("%.2fB", count / 1e9);
}

std::string FormatLoss(double loss) { return absl::StrFormat("%.4f", loss); }

std::string FormatTime(const google::protobuf::Timestamp& time) {
  return LocalTime(time, "%Y-%m-%d %H:%M:%S");
}
std::string FormatClock(const google::protobuf::Timestamp& time) {
  return LocalTime(time, "%H:%M:%S");
}

size_t DisplayWidth(std::string_view text) {
  size_t width = 0;
  for (size_t i = 0; i < text.size();) {
    if (const size_t escape = EscapeLength(text, i); escape > 0) {
      i += escape;
      continue;
    }
    if (!IsContinuation(text[i])) ++width;
    ++i;
  }
  return width;
}

std::string Truncate(std::string_view text, size_t width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  if (width == 0) return "";
  std::string out;
  size_t used = 0;
  bool escaped = false;
  for (size_t i = 0; i < text.size();) {
    if (const size_t escape = EscapeLength(text, i); escape > 0) {
      out += text.substr(i, escape);
      escaped = true;
      i += escape;
      continue;
    }
    if (used + 1 >= width) break;
    do {
      out += text[i++];
    } while (i < text.size() && IsContinuation(text[i]));
    ++used;
  }
  out += "…";
  if (escaped) out += "\x1b[0m";
  return out;
}

std::string Printable(std::string_view text, bool one_line) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c == '\n' && !one_line) {
      out += '\n';
    } else if (c == '\n' || c == '\t' || c == '\r') {
      out += ' ';
    } else if (c < 0x20 || c == 0x7f) {
      absl::StrAppendFormat(&out, "\\x%02x", c);
    } else if (c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned char>(text[++i]));  // C1 controls
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string> Wrap(std::string_view text, size_t width) {
  std::vector<std::string> lines;
  width = std::max<size_t>(width, 10);
  while (true) {
    const size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    while (DisplayWidth(line) > width) {
      size_t cut = 0, columns = 0, space = std::string_view::npos;
      while (cut < line.size() && columns < width) {
        if (line[cut] == ' ') space = cut;
        do {
          ++cut;
        } while (cut < line.size() && IsContinuation(line[cut]));
        ++columns;
      }
      if (space != std::string_view::npos && space > 0) cut = space;
      lines.emplace_back(line.substr(0, cut));
      line.remove_prefix(cut);
      while (!line.empty() && line[0] == ' ') line.remove_prefix(1);
    }
    lines.emplace_back(line);
    if (newline == std::string_view::npos) return lines;
    text.remove_prefix(newline + 1);
  }
}

std::string Sparkline(const std::vector<double>& values, size_t width) {
  static constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  std::vector<double> finite;
  for (const double value : values) {
    if (std::isfinite(value)) finite.push_back(value);
  }
  if (finite.empty() || width == 0) return "";
  const size_t buckets = std::min(width, finite.size());
  std::vector<double> means(buckets);
  for (size_t b = 0; b < buckets; ++b) {
    const size_t begin = b * finite.size() / buckets, end = (b + 1) * finite.size() / buckets;
    for (size_t i = begin; i < end; ++i) means[b] += finite[i] / static_cast<double>(end - begin);
  }
  const auto [low, high] = std::minmax_element(means.begin(), means.end());
  const double range = *high - *low;
  std::string out;
  for (const double mean : means) {
    out += kBlocks[range > 0 ? std::min(7, static_cast<int>((mean - *low) / range * 8)) : 3];
  }
  return out;
}

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], DisplayWidth(row[c]));
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      line += row[c];
      if (c + 1 < row.size()) line += std::string(widths[c] - DisplayWidth(row[c]) + 2, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&out, line, "\n");
  }
  return out;
}

}  // namespace finetuned
