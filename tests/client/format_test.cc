#include "client/format.h"

#include <gtest/gtest.h>

#include <cmath>

#include "client/event_text.h"

namespace finetuned {
namespace {

TEST(Format, NumbersForPeople) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(uint64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(FormatSeconds(3.25), "3.2s");
  EXPECT_EQ(FormatSeconds(75), "1m15s");
  EXPECT_EQ(FormatSeconds(3723), "1h02m");
  EXPECT_EQ(FormatSeconds(-1), "–");
  EXPECT_EQ(FormatSeconds(std::nan("")), "–");
  EXPECT_EQ(FormatCount(950), "950");
  EXPECT_EQ(FormatCount(12345), "12.3k");
  EXPECT_EQ(FormatCount(134515008), "134.5M");
}

TEST(Format, WidthAndTruncationCountCodePointsNotBytes) {
  EXPECT_EQ(DisplayWidth("größe"), 5u);
  EXPECT_EQ(DisplayWidth("\x1b[31mred\x1b[0m"), 3u);
  EXPECT_EQ(Truncate("größer", 4), "grö…");
  EXPECT_EQ(Truncate("abc", 3), "abc");
  EXPECT_EQ(Truncate("abc", 0), "");
  EXPECT_EQ(Wrap("one two three", 10), (std::vector<std::string>{"one two", "three"}));
  EXPECT_EQ(Wrap("a\nb", 10), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(Wrap("", 10).size(), 1u);
}

TEST(Format, ControlCharactersOfAModelAreShownNotObeyed) {
  EXPECT_EQ(Printable("a\x1b[2Jb", true), "a\\x1b[2Jb");
  EXPECT_EQ(Printable("a\nb", true), "a b");
  EXPECT_EQ(Printable("a\nb", false), "a\nb");
  EXPECT_EQ(Printable("\xc2\x9b", true), "\\u009b");
  EXPECT_EQ(Printable("é", true), "é");
}

TEST(Sparkline, ScalesAveragesAndLeavesOutWhatIsNotFinite) {
  EXPECT_EQ(Sparkline({}, 10), "");
  EXPECT_EQ(Sparkline({1, 2}, 0), "");
  EXPECT_EQ(Sparkline({0, 7}, 10), "▁█");
  EXPECT_EQ(Sparkline({5, 5, 5}, 10), "▄▄▄");
  EXPECT_EQ(Sparkline({0, 0, 8, 8}, 2), "▁█");
  EXPECT_EQ(Sparkline({0, std::nan(""), 7}, 10), "▁█");
  EXPECT_EQ(DisplayWidth(Sparkline(std::vector<double>(1000, 1.0), 40)), 40u);
}

TEST(Table, ColumnsAlign) {
  EXPECT_EQ(FormatTable({{"A", "B"}, {"größe", "1"}, {"x"}}), "A      B\ngröße  1\nx\n");
}

TEST(EventText, EachEventNamesTheThing) {
  v1::JobEvent event;
  event.mutable_state()->set_to(v1::RUNNING);
  EXPECT_EQ(EventText(event), "state running");
  event.mutable_stage()->set_stage(v1::PREPARING_DATA);
  EXPECT_EQ(EventText(event), "stage preparing data");
  v1::TrainingMetrics* metrics = event.mutable_metrics();
  metrics->set_step(20);
  metrics->set_total_steps(450);
  metrics->set_loss(2.0134);
  metrics->set_learning_rate(1.9e-4);
  metrics->set_grad_norm(0.5);
  metrics->set_tokens_per_second(1234);
  metrics->set_host_rss_bytes(uint64_t{2} << 30);
  metrics->set_eta_seconds(192);
  EXPECT_EQ(EventText(event),
            "step 20/450  loss 2.0134  lr 1.90e-04  grad 0.5  1.2k tok/s  2.0 GiB  ETA 3m12s");
  v1::Progress* progress = event.mutable_progress();
  progress->set_stage(v1::MERGING);
  progress->set_unit("layers");
  progress->set_done(12);
  progress->set_total(32);
  EXPECT_EQ(EventText(event), "merging  12/32 layers  37 %");
  event.mutable_log()->set_text("evil \x1b]0;title\x07");
  EXPECT_EQ(EventText(event), "evil \\x1b]0;title\\x07");
}

}  // namespace
}  // namespace finetuned
