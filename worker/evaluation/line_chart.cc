#include "worker/evaluation/line_chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "worker/evaluation/html_text.h"

namespace finetuned {
namespace {

constexpr size_t kBuckets = 150;
constexpr int kTicks = 5;
constexpr double kLogRatio = 50;
// Beyond it a value is no measurement; it is drawn as a gap, and sums of two cannot overflow.
constexpr double kLargest = 1e30;
// Differences below it are none, and values below it have no place on a logarithmic axis.
constexpr double kSmallest = 1e-30;

bool Drawable(double y) { return std::isfinite(y) && std::abs(y) <= kLargest; }

// The next of 1, 2, 5 · 10ⁿ at or above `rough`.
double RoundStep(double rough) {
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

std::string Coordinate(double share) {
  std::string text = absl::StrFormat("%.1f", 1000 * share);
  if (text.size() > 2 && text.compare(text.size() - 2, 2, ".0") == 0) text.resize(text.size() - 2);
  return text;
}

std::string Percent(double share) { return absl::StrFormat("%.2f%%", 100 * share); }

// Lines through the points, with a gap where a value is missing. A point alone becomes a dot by its
// round cap.
std::string PathData(const std::vector<ChartPoint>& points, const Axis& x, const Axis& y) {
  std::string data;
  bool open = false;
  for (size_t i = 0; i < points.size(); ++i) {
    if (!Drawable(points[i].y)) {
      open = false;
      continue;
    }
    absl::StrAppend(&data, open ? "L" : "M", Coordinate(x.Share(points[i].x)), " ",
                    Coordinate(1 - y.Share(points[i].y)));
    const bool alone = !open && (i + 1 == points.size() || !Drawable(points[i + 1].y));
    if (alone) data += "h0";
    open = true;
  }
  return data;
}

// "1 3.864;2 3.536": read by the page's script.
std::string Values(const std::vector<ChartPoint>& points) {
  std::string text;
  for (const ChartPoint& point : points) {
    absl::StrAppend(&text, text.empty() ? "" : ";", absl::StrFormat("%.10g", point.x), " ",
                    Drawable(point.y) ? absl::StrFormat("%.4g", point.y) : "NaN");
  }
  return text;
}

// As many digits as neighbouring ticks need to differ.
int TickDigits(const Axis& axis) {
  if (axis.log || axis.ticks.size() < 2) return 3;
  const double largest = std::max(std::abs(axis.low), std::abs(axis.high));
  return std::clamp(
      static_cast<int>(std::ceil(std::log10(largest / (axis.ticks[1] - axis.ticks[0])) + 1)), 3, 9);
}

std::string TickText(double value, int digits) {
  const double size = std::abs(value);
  if (size >= 1e9) return ShortNumber(value / 1e9, digits) + "G";
  if (size >= 1e6) return ShortNumber(value / 1e6, digits) + "M";
  if (size >= 1e5) return ShortNumber(value / 1e3, digits) + "k";
  return ShortNumber(value, digits);
}

}  // namespace

std::vector<ChartPoint> DownSample(const std::vector<ChartPoint>& points, size_t buckets) {
  if (points.size() <= 4 * buckets) return points;
  std::vector<ChartPoint> kept;
  for (size_t bucket = 0; bucket < buckets; ++bucket) {
    const size_t begin = bucket * points.size() / buckets,
                 end = (bucket + 1) * points.size() / buckets;
    size_t lowest = end, highest = end, missing = end;
    for (size_t i = begin; i < end; ++i) {
      if (!Drawable(points[i].y)) {
        missing = std::min(missing, i);
        continue;
      }
      if (lowest == end || points[i].y < points[lowest].y) lowest = i;
      if (highest == end || points[i].y > points[highest].y) highest = i;
    }
    std::array<size_t, 5> chosen = {begin, lowest, highest, missing, end - 1};
    std::sort(chosen.begin(), chosen.end());
    for (size_t i = 0; i < chosen.size(); ++i) {
      if (chosen[i] < end && (i == 0 || chosen[i] != chosen[i - 1]))
        kept.push_back(points[chosen[i]]);
    }
  }
  return kept;
}

double Axis::Share(double value) const {
  return log ? (std::log(value) - std::log(low)) / (std::log(high) - std::log(low))
             : (value - low) / (high - low);
}

Axis MakeAxis(double low, double high, bool log, bool expand) {
  Axis axis;
  axis.log = log;
  if (log) {
    axis.low = std::pow(10, std::floor(std::log10(low) + 1e-9));
    axis.high = std::pow(10, std::ceil(std::log10(high) - 1e-9));
    if (axis.high <= axis.low) axis.high = axis.low * 10;
    const int decades = static_cast<int>(std::lround(std::log10(axis.high / axis.low)));
    const int stride = (decades + kTicks - 1) / kTicks;
    for (int i = 0; i <= decades; i += stride) axis.ticks.push_back(axis.low * std::pow(10, i));
    return axis;
  }
  const double size = std::max(std::abs(low), std::abs(high));
  if (!(high - low > 1e-9 * size + kSmallest)) {  // one value, as far as a chart can tell: room around it
    const double room = size < kSmallest ? 1 : size * 0.1;
    low -= room;
    high += room;
  }
  const double step = RoundStep((high - low) / kTicks);
  axis.low = expand ? std::floor(low / step + 1e-9) * step : low;
  axis.high = expand ? std::ceil(high / step - 1e-9) * step : high;
  const double first = std::ceil(axis.low / step - 1e-9);
  for (int i = 0; i <= 2 * kTicks + 2; ++i) {
    const double tick = (first + i) * step;
    if (tick > axis.high + 1e-9 * step) break;
    axis.ticks.push_back(tick);
  }
  return axis;
}

std::string RenderChart(const Chart& chart) {
  double x_low = std::numeric_limits<double>::infinity(), x_high = -x_low, y_low = x_low,
         y_high = -x_low;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) {
      x_low = std::min(x_low, point.x);
      x_high = std::max(x_high, point.x);
      if (!Drawable(point.y)) continue;
      y_low = std::min(y_low, point.y);
      y_high = std::max(y_high, point.y);
    }
  }
  if (!(y_low <= y_high)) return "";
  const bool log = chart.may_be_log && y_low >= kSmallest && y_high / y_low > kLogRatio;
  if (chart.from_zero && !log) y_low = std::min(y_low, 0.0);
  Axis x = MakeAxis(x_low, x_high, /*log=*/false, /*expand=*/false);
  const Axis y = MakeAxis(y_low, y_high, log, /*expand=*/true);
  // Steps are whole: no ticks between them.
  x.ticks.erase(std::remove_if(x.ticks.begin(), x.ticks.end(),
                               [](double t) { return t < 0 || t != std::floor(t); }),
                x.ticks.end());

  std::string out =
      absl::StrCat("<figure class=\"chart\"><figcaption><b>", EscapeHtml(chart.title), "</b>");
  const std::string unit =
      absl::StrCat(chart.unit, log ? (chart.unit.empty() ? "logarithmic" : ", logarithmic") : "");
  if (!unit.empty()) absl::StrAppend(&out, " <small>", EscapeHtml(unit), "</small>");
  const bool limit_shown =
      chart.limit.has_value() && *chart.limit >= y.low && *chart.limit <= y.high;
  if (chart.series.size() > 1 || limit_shown || !chart.marks.empty()) {
    out += "<span class=\"legend\">";
    for (const ChartSeries& series : chart.series) {
      absl::StrAppend(&out, "<span><i class=\"", series.markers ? "dot " : "dash ", series.color,
                      series.faint ? " faint" : "", "\"></i>", EscapeHtml(series.name), "</span>");
    }
    if (limit_shown)
      absl::StrAppend(&out, "<span><i class=\"dash limit\"></i>", EscapeHtml(chart.limit_name),
                      "</span>");
    if (!chart.marks.empty())
      absl::StrAppend(&out, "<span><i class=\"mark\"></i>", EscapeHtml(chart.marks_name),
                      "</span>");
    out += "</span>";
  }
  out += "</figcaption><div class=\"plot\"><div class=\"ys\">";
  for (double tick : y.ticks) {
    absl::StrAppend(&out, "<span class=\"yt\" style=\"top:", Percent(1 - y.Share(tick)), "\">",
                    TickText(tick, TickDigits(y)), "</span>");
  }
  out += "</div><div class=\"xs\">";
  for (double tick : x.ticks) {
    absl::StrAppend(&out, "<span class=\"xt\" style=\"left:", Percent(x.Share(tick)), "\">",
                    TickText(tick, TickDigits(x)), "</span>");
  }
  absl::StrAppend(&out, "</div><span class=\"xl\">step</span><div class=\"area\" data-x0=\"",
                  absl::StrFormat("%.10g", x.low), "\" data-x1=\"",
                  absl::StrFormat("%.10g", x.high),
                  "\"><svg viewBox=\"0 0 1000 1000\" preserveAspectRatio=\"none\" role=\"img\"",
                  " aria-label=\"", EscapeHtml(chart.description), "\"><g class=\"grid\">");
  for (double tick : y.ticks)
    absl::StrAppend(&out, "<path d=\"M0 ", Coordinate(1 - y.Share(tick)), "H1000\"/>");
  for (double tick : x.ticks)
    absl::StrAppend(&out, "<path d=\"M", Coordinate(x.Share(tick)), " 1000v12\"/>");
  out += "</g>";
  if (limit_shown)
    absl::StrAppend(&out, "<path class=\"limit\" d=\"M0 ", Coordinate(1 - y.Share(*chart.limit)),
                    "H1000\"/>");
  std::string dots;
  for (const ChartSeries& series : chart.series) {
    const std::vector<ChartPoint> points = DownSample(series.points, kBuckets);
    absl::StrAppend(&out, "<path class=\"line ", series.color, series.faint ? " faint" : "",
                    "\" data-name=\"", EscapeHtml(series.name), "\" data-values=\"", Values(points),
                    "\" d=\"", PathData(points, x, y), "\"/>");
    if (!series.markers) continue;
    for (const ChartPoint& point : points) {
      if (!Drawable(point.y)) continue;
      absl::StrAppend(
          &dots, "<i class=\"dot ", series.color, "\" style=\"left:", Percent(x.Share(point.x)),
          ";top:", Percent(1 - y.Share(point.y)), "\" title=\"", EscapeHtml(series.name), ", step ",
          ShortNumber(point.x, 10), ": ", ShortNumber(point.y), "\"></i>");
    }
  }
  out += "</svg>";
  std::vector<ChartPoint> marks;
  for (double mark : chart.marks) marks.push_back({mark, 0});
  for (const ChartPoint& mark : DownSample(marks, kBuckets / 4)) {
    absl::StrAppend(&out, "<i class=\"mark\" style=\"left:", Percent(x.Share(mark.x)),
                    "\" title=\"", EscapeHtml(chart.marks_name), ", step ", ShortNumber(mark.x, 10),
                    "\"></i>");
  }
  absl::StrAppend(&out, dots, "</div></div></figure>");
  return out;
}

}  // namespace finetuned
