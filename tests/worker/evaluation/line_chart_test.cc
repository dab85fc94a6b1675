#include "worker/evaluation/line_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace finetuned {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(AxisTest, RoundTicks) {
  EXPECT_THAT(MakeAxis(1.83, 3.91, false, true).ticks, ElementsAre(1.5, 2, 2.5, 3, 3.5, 4));
  EXPECT_THAT(MakeAxis(0, 2e-4, false, true).ticks,
              ElementsAre(0, DoubleNear(5e-5, 1e-12), DoubleNear(1e-4, 1e-12),
                          DoubleNear(1.5e-4, 1e-12), DoubleNear(2e-4, 1e-12)));
  EXPECT_THAT(MakeAxis(1, 30, false, false).ticks, ElementsAre(10, 20, 30));
  EXPECT_THAT(MakeAxis(0.02, 300, true, true).ticks,
              ElementsAre(DoubleNear(0.01, 1e-9), DoubleNear(0.1, 1e-9), DoubleNear(1, 1e-9),
                          DoubleNear(10, 1e-9), DoubleNear(100, 1e-9), DoubleNear(1000, 1e-9)));
}

TEST(AxisTest, HoldsItsRange) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> exponent(-25, 25), share(0, 1);
  for (int i = 0; i < 5000; ++i) {
    const double low = (random() % 2 ? 1 : -1) * std::pow(10, exponent(random));
    const double high = random() % 8 == 0 ? low : low + std::pow(10, exponent(random));
    const bool log = low > 0 && random() % 2;
    const Axis axis = MakeAxis(low, high, log, true);
    ASSERT_LT(axis.low, axis.high) << low << " " << high;
    for (double value : {low, high}) {
      EXPECT_GE(axis.Share(value), -1e-6) << low << " " << high << " log " << log;
      EXPECT_LE(axis.Share(value), 1 + 1e-6) << low << " " << high << " log " << log;
    }
    EXPECT_LE(axis.ticks.size(), 13u);
    EXPECT_TRUE(std::is_sorted(axis.ticks.begin(), axis.ticks.end()));
  }
}

TEST(DownSampleTest, KeepsExtremesEndsAndGaps) {
  std::mt19937 random(1);
  std::vector<ChartPoint> points;
  for (int i = 0; i < 10000; ++i)
    points.push_back({static_cast<double>(i), static_cast<double>(random() % 1000) / 1000});
  points[1234].y = 50;
  points[7777].y = -50;
  points[5000].y = std::numeric_limits<double>::quiet_NaN();
  const auto kept = DownSample(points, 100);
  EXPECT_LE(kept.size(), 500u);
  EXPECT_EQ(kept.front().x, 0);
  EXPECT_EQ(kept.back().x, 9999);
  const auto has = [&](double x) {
    return std::any_of(kept.begin(), kept.end(), [&](const ChartPoint& p) { return p.x == x; });
  };
  EXPECT_TRUE(has(1234) && has(7777) && has(5000));
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end(),
                             [](const auto& a, const auto& b) { return a.x < b.x; }));
  EXPECT_EQ(std::adjacent_find(kept.begin(), kept.end(),
                               [](const auto& a, const auto& b) { return a.x == b.x; }),
            kept.end());
}

TEST(DownSampleTest, FewPointsStayAsTheyAre) {
  EXPECT_EQ(DownSample({}, 10).size(), 0u);
  EXPECT_EQ(DownSample({{1, 2}}, 10).size(), 1u);
  EXPECT_EQ(DownSample(std::vector<ChartPoint>(40), 10).size(), 40u);
  EXPECT_LE(DownSample(std::vector<ChartPoint>(41), 10).size(), 40u);
}

Chart Of(std::vector<ChartPoint> points) {
  Chart chart;
  chart.title = "Loss";
  chart.series.push_back({.name = "training", .color = "c1", .points = std::move(points)});
  return chart;
}

TEST(RenderChartTest, NothingToDraw) {
  EXPECT_EQ(RenderChart(Of({})), "");
  EXPECT_EQ(RenderChart(Of({{1, std::numeric_limits<double>::quiet_NaN()}})), "");
}

TEST(RenderChartTest, GapsAndLonePoints) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string html = RenderChart(Of({{0, 0}, {1, 1}, {2, nan}, {3, 1}, {4, nan}}));
  EXPECT_THAT(html, HasSubstr("d=\"M0 1000L250 0M750 0h0\""));
  EXPECT_THAT(html, HasSubstr("data-values=\"0 0;1 1;2 NaN;3 1;4 NaN\""));
}

TEST(RenderChartTest, LogarithmicOnlyWhereTheRangeAsksForIt) {
  Chart chart = Of({{1, 0.1}, {2, 100}});
  EXPECT_THAT(RenderChart(chart), Not(HasSubstr("logarithmic")));
  chart.may_be_log = true;
  EXPECT_THAT(RenderChart(chart), HasSubstr("logarithmic"));
  chart.series[0].points[0].y = 5;
  EXPECT_THAT(RenderChart(chart), Not(HasSubstr("logarithmic")));
  chart.series[0].points[0].y = -1;
  EXPECT_THAT(RenderChart(chart), Not(HasSubstr("logarithmic")));
}

TEST(RenderChartTest, NeighbouringTicksDiffer) {
  const std::string html = RenderChart(Of({{1, 3.86412}, {2, 3.86417}}));
  EXPECT_THAT(html, HasSubstr(">3.86412</span>"));
  EXPECT_THAT(html, HasSubstr(">3.86414</span>"));
}

}  // namespace
}  // namespace finetuned
