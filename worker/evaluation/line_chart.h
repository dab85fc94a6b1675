// A line chart as HTML with inline SVG: axes with round ticks, legend, values under the pointer by
// the page's script. The plot stretches with the page while its labels keep their size, so it can
// be read on a phone and on paper.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace finetuned {

struct ChartPoint {
  double x = 0;
  double y = 0;  // not finite: the line has a gap
};

struct ChartSeries {
  std::string name;                // in legend and hover text
  std::string color;               // class of the page's style sheet: "c1" … "c4"
  std::vector<ChartPoint> points;  // x rising
  bool markers = false;  // each point is marked and carries its value as a title; for few points
  bool faint = false;    // drawn thin behind the others
};

struct Chart {
  std::string title;  // "Loss"
  std::string unit;   // "nats a token"; may be empty
  std::vector<ChartSeries> series;
  bool from_zero = false;       // the y axis begins at 0
  bool may_be_log = false;      // logarithmic where positive values span more than a factor of 50
  std::optional<double> limit;  // a horizontal line within the drawn range, with its name
  std::string limit_name;
  std::vector<double> marks;  // x of what is worth a mark on the axis, with its name
  std::string marks_name;
  std::string description;  // what the chart shows, in a sentence, for those who do not see it
};

// Empty when no series has a finite value. At most about 600 points a series are drawn, extremes
// kept.
std::string RenderChart(const Chart& chart);

// Every extreme survives: of each of `buckets` runs of points the first, the last, the lowest, the
// highest and the first that is not finite, in their order. Unchanged when there are at most 4 ·
// buckets points.
std::vector<ChartPoint> DownSample(const std::vector<ChartPoint>& points, size_t buckets);

struct Axis {
  double low = 0, high = 1;
  bool log = false;
  std::vector<double> ticks;
  // 0 at low, 1 at high; may be outside.
  double Share(double value) const;
};
// Round ticks around [low, high]; `log` needs low > 0. `expand`: the axis ends at ticks rather than
// at low and high.
Axis MakeAxis(double low, double high, bool log, bool expand);

}  // namespace finetuned
