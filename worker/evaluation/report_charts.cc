#include "worker/evaluation/report_charts.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "worker/evaluation/html_text.h"
#include "worker/evaluation/line_chart.h"

namespace finetuned {
namespace {

using v1::TrainingMetrics;

template <typename Get>
ChartSeries Series(const char* name, const char* color, const std::vector<TrainingMetrics>& metrics,
                   const Get& get) {
  ChartSeries series;
  series.name = name;
  series.color = color;
  series.points.reserve(metrics.size());
  for (const TrainingMetrics& step : metrics)
    series.points.push_back({static_cast<double>(step.step()), static_cast<double>(get(step))});
  return series;
}

double Largest(const ChartSeries& series) {
  double largest = 0;
  for (const ChartPoint& point : series.points) {
    if (std::isfinite(point.y)) largest = std::max(largest, point.y);
  }
  return largest;
}

// "Training loss: 3.864 at step 1, 1.894 at step 30."
std::string Describe(const ChartSeries& series) {
  if (series.points.empty()) return "";
  const ChartPoint &first = series.points.front(), &last = series.points.back();
  return absl::StrCat(series.name, ": ", ShortNumber(first.y), " at step ",
                      ShortNumber(first.x, 10), ", ", ShortNumber(last.y), " at step ",
                      ShortNumber(last.x, 10), ". ");
}

}  // namespace

std::string ReportCharts(const ReportInputs& in) {
  const auto& metrics = in.metrics;
  if (metrics.empty()) return "";
  std::vector<double> skipped;
  for (const TrainingMetrics& step : metrics) {
    if (step.skipped() || !std::isfinite(step.loss()) || !std::isfinite(step.grad_norm()))
      skipped.push_back(static_cast<double>(step.step()));
  }
  const auto finish = [&](Chart chart) {
    for (const ChartSeries& series : chart.series) chart.description += Describe(series);
    return RenderChart(chart);
  };
  std::string out = "<div class=\"charts\">";

  Chart loss{.title = "Loss",
             .unit = "nats a token",
             .may_be_log = true,
             .marks = skipped,
             .marks_name = "skipped update"};
  loss.series.push_back(Series("training", "c1", metrics, [](const auto& m) { return m.loss(); }));
  if (metrics.size() > 2) {
    loss.series.back().faint = true;
    loss.series.push_back(
        Series("training, average", "c1", metrics, [](const auto& m) { return m.loss_average(); }));
  }
  ChartSeries evaluations{.name = "evaluation", .color = "c2", .markers = true};
  for (const v1::EvaluationResult& e : in.evaluations) {
    evaluations.points.push_back(
        {e.model() == "base" ? 0.0 : static_cast<double>(e.step()), e.response().loss()});
  }
  if (!evaluations.points.empty()) {
    std::stable_sort(evaluations.points.begin(), evaluations.points.end(),
                     [](const auto& a, const auto& b) { return a.x < b.x; });
    loss.series.push_back(std::move(evaluations));
  }
  out += finish(std::move(loss));

  Chart rate{.title = "Learning rate", .from_zero = true};
  rate.series.push_back(
      Series("learning rate", "c1", metrics, [](const auto& m) { return m.learning_rate(); }));
  out += finish(std::move(rate));

  Chart norm{.title = "Gradient norm",
             .unit = "before clipping",
             .from_zero = true,
             .may_be_log = true,
             .marks = skipped,
             .marks_name = "skipped update"};
  norm.series.push_back(
      Series("gradient norm", "c3", metrics, [](const auto& m) { return m.grad_norm(); }));
  if (in.spec.max_grad_norm() > 0) {
    norm.limit = in.spec.max_grad_norm();
    norm.limit_name = "max_grad_norm";
  }
  out += finish(std::move(norm));

  Chart speed{.title = "Speed", .unit = "tokens a second", .from_zero = true};
  speed.series.push_back(
      Series("all tokens", "c1", metrics, [](const auto& m) { return m.tokens_per_second(); }));
  speed.series.push_back(Series("trained tokens", "c4", metrics,
                                [](const auto& m) { return m.trained_tokens_per_second(); }));
  if (Largest(speed.series[0]) > 0) out += finish(std::move(speed));

  ChartSeries device = Series("allocated on the device", "c1", metrics,
                              [](const auto& m) { return m.device_allocated_bytes(); });
  ChartSeries peak = Series("peak on the device", "c2", metrics,
                            [](const auto& m) { return m.device_peak_bytes(); });
  ChartSeries host =
      Series("host", "c4", metrics, [](const auto& m) { return m.host_rss_bytes(); });
  const double largest = std::max({Largest(device), Largest(peak), Largest(host)});
  if (largest > 0) {
    // On a CPU the device is the host: one series says it.
    const bool same = std::all_of(metrics.begin(), metrics.end(), [](const auto& m) {
      return m.device_allocated_bytes() == m.host_rss_bytes();
    });
    Chart memory{.title = "Memory", .unit = largest < (1 << 30) ? "MiB" : "GiB", .from_zero = true};
    const double unit = largest < (1 << 30) ? 1 << 20 : 1 << 30;
    if (same) device.name = "in use";
    memory.series = {std::move(device), std::move(peak)};
    if (same) memory.series[1].name = "peak";
    if (!same) memory.series.push_back(std::move(host));
    for (ChartSeries& series : memory.series) {
      for (ChartPoint& point : series.points) point.y /= unit;
    }
    out += finish(std::move(memory));
  }
  return out + "</div>";
}

}  // namespace finetuned
