// report.html: every text from outside is inert, the page is well-formed whatever the run did, and
// its size is bounded.
#include "worker/evaluation/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "proto/spec/spec.h"
#include "tests/fakes/temp_dir.h"
#include "worker/evaluation/html_text.h"

namespace finetuned {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

void SetLoss(double loss, int64_t tokens, v1::LossSummary* out) {
  out->set_loss(loss);
  out->set_tokens(tokens);
  out->set_perplexity(std::exp(loss));
}

v1::TrainingMetrics Step(int64_t step, double loss, double norm) {
  v1::TrainingMetrics m;
  m.set_step(step);
  m.set_loss(loss);
  m.set_loss_average(loss);
  m.set_grad_norm(norm);
  m.set_learning_rate(2e-4);
  m.set_tokens_per_second(1234);
  m.set_trained_tokens_per_second(321);
  m.set_device_allocated_bytes(3u << 30);
  m.set_device_peak_bytes(uint64_t{7} << 29);
  m.set_host_rss_bytes(1u << 30);
  return m;
}

ReportInputs Ordinary(int64_t steps) {
  ReportInputs in;
  in.job_id = "j-1";
  in.spec.set_model_name_or_path("/models/smollm2-135m/");
  in.spec.set_learning_rate(2e-4);
  in.spec.mutable_dataset()->add_path("train.jsonl");
  in.spec = ResolveDefaults(in.spec);
  for (int64_t i = 1; i <= steps; ++i)
    in.metrics.push_back(Step(i, 2 + 2.0 / static_cast<double>(i), 0.5));
  v1::EvaluationResult& base = *in.result.mutable_base();
  base.set_model("base");
  base.set_samples(600);
  SetLoss(3.75, 7118, base.mutable_response());
  SetLoss(4.74, 23030, base.mutable_prompt());
  SetLoss(4.50, 30148, base.mutable_overall());
  v1::EvaluationResult& tuned = *in.result.mutable_tuned();
  tuned = base;
  tuned.set_model("tuned");
  SetLoss(2.08, 7118, tuned.mutable_response());
  in.evaluations = {base, tuned};
  in.evaluations[1].set_step(steps);
  in.evaluations[1].set_is_best(true);
  in.evaluations[1].set_verdict("improving");
  in.dataset.set_records(10000);
  in.dataset.set_train_samples(9990);
  in.dataset.set_validation_samples(600);
  (*in.dataset.mutable_dropped())["duplicate"] = 10;
  in.result.set_steps(steps);
  in.result.set_verdict(
      "improved: response perplexity 42.5 → 8.0 (−81.2 %) on 600 samples; ready to deploy");
  (*in.result.mutable_stage_seconds())["training"] = 242;
  v1::GenerationSample& sample = *in.result.add_samples();
  sample.set_prompt("Define the noun \"endodontia\".");
  sample.set_base("the process of development");
  sample.set_tuned("the branch of dentistry");
  sample.set_reference("the branch of dentistry dealing with diseases of the dental pulp");
  in.exports = {{"gguf q8_0", "verified: max relative error 3.1e-3"}};
  in.provenance = {{"device", "cpu"}};
  return in;
}

// Parsed by Python's expat as strict XML and by html.parser: elements that load or run something
// are the page's own.
void ExpectSoundPage(const std::string& html) {
  const TempDir dir;
  std::ofstream(dir / "report.html", std::ios::binary) << html;
  std::ofstream(dir / "check.py") << R"py(
import html.parser, sys, xml.etree.ElementTree
text = open(sys.argv[1], encoding="utf-8", newline="").read()
xml.etree.ElementTree.fromstring(text)
class Check(html.parser.HTMLParser):
    scripts = 0
    def handle_starttag(self, tag, attributes):
        assert tag not in ("img", "iframe", "object", "embed", "link", "base", "form", "a", "audio", "video"), tag
        self.scripts += tag == "script"
        for name, value in attributes:
            assert not name.startswith("on") and name not in ("src", "href", "action", "xlink:href"), (tag, name)
            assert "url(" not in (value or "") or tag == "meta", value
check = Check()
check.feed(text)
check.close()
assert check.scripts == 1, check.scripts
)py";
  const char* python = std::getenv("FINETUNED_PYTHON");
  const std::string command = absl::StrCat(python != nullptr ? python : "python3", " ",
                                           dir / "check.py", " ", dir / "report.html");
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST(ReportTest, SaysWhatMattersInOrder) {
  const std::string html = RenderReportHtml(Ordinary(30));
  ExpectSoundPage(html);
  size_t last = 0;
  for (const char* text :
       {"<title>smollm2-135m", "Improved: response perplexity 42.5 → 8.0", "chose among 42.5",
        "Ready to deploy", "id=\"evaluation\"", "id=\"samples\"", "id=\"curves\"", "id=\"data\"",
        "id=\"exports\"", "id=\"settings\"", "id=\"provenance\""}) {
    const size_t at = html.find(text);
    ASSERT_NE(at, std::string::npos) << text;
    EXPECT_GT(at, last) << text;
    last = at;
  }
  EXPECT_THAT(html, HasSubstr("class=\"verdict good\""));
  EXPECT_THAT(html, HasSubstr("(−81.2 %)"));
  EXPECT_THAT(html, HasSubstr("Define the noun &quot;endodontia&quot;."));
  EXPECT_THAT(html, HasSubstr("✓ verified: max relative error 3.1e-3"));
  EXPECT_THAT(html, Not(HasSubstr("http://www.w3.org/2000")));
}

TEST(ReportTest, SettingsThatDifferFromTheDefaultAreBold) {
  ReportInputs in = Ordinary(3);
  in.spec.mutable_lora()->mutable_r()->set_value(64);
  const std::string html = RenderReportHtml(in);
  EXPECT_THAT(html, HasSubstr("<td class=\"mono\">r</td><td class=\"mono set\">64</td>"));
  EXPECT_THAT(html, HasSubstr("<td class=\"mono\">packing</td><td class=\"mono\">true</td>"));
}

TEST(ReportTest, HostileTextsAreInert) {
  const std::vector<std::string> hostile = {
      "</script><script>alert(1)</script>",
      "<img src=x onerror=alert(1)>",
      "\" onmouseover=\"alert(1)\" x=\"",
      "' style='background:url(http://x/)",
      "]]></style><style>*{display:none}</style><!--",
      "-->&lt;&#60;&amp;&unknown;<![CDATA[",
      std::string("\0\x01\x1b[31m\x7f", 8),
      "\xff\xfe broken \xc3 \xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf",
      "\xef\xbf\xbf \xef\xbf\xbe",
      "\u202eevil\u202c \u2066x \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 "
      "👩‍👩‍👧 "
      "\u0301",
  };
  for (const std::string& text : hostile) {
    ReportInputs in = Ordinary(5);
    in.job_id = text;
    in.spec.set_model_name_or_path(text);
    in.spec.set_run_name(text);
    in.spec.mutable_dataset()->add_path(text);
    in.spec.mutable_dataset()->set_system_prompt(text);
    (*in.spec.mutable_lora()->mutable_rank_pattern())[text] = 3;
    in.result.set_verdict(text + "; " + text);
    v1::GenerationSample& sample = *in.result.mutable_samples(0);
    sample.set_sample_id(text);
    sample.set_prompt(text);
    sample.set_reference(text);
    sample.set_base(text);
    sample.set_tuned(text);
    v1::Artifact& artifact = *in.result.add_artifacts();
    artifact.set_path(text);
    artifact.set_sha256(text);
    (*in.dataset.mutable_dropped())[text] = 1;
    in.dataset.add_warnings(text);
    in.dataset.set_shape(text);
    in.dataset.set_chat_template(text);
    in.evaluations[1].set_verdict(text);
    in.checkpoints.emplace_back().set_reason(text);
    in.exports = {{text, text}};
    in.provenance = {{text, text}};
    in.estimate.set_device(text);
    (*in.estimate.mutable_memory()->mutable_device_bytes())[text] = 1;
    ExpectSoundPage(RenderReportHtml(in));
  }
}

TEST(ReportTest, NothingMeasured) {
  const std::string empty = RenderReportHtml({});
  ExpectSoundPage(empty);
  EXPECT_THAT(empty, HasSubstr("No verdict"));
  EXPECT_THAT(empty, Not(HasSubstr("id=\"curves\"")));

  ReportInputs in = Ordinary(3);
  in.result.clear_base();
  in.result.clear_tuned();
  in.result.clear_samples();
  in.evaluations.clear();
  in.dataset.set_validation_samples(0);
  in.result.set_verdict(
      "not compared with the base model: no validation samples or no baseline; evaluate before "
      "deploying");
  const std::string html = RenderReportHtml(in);
  ExpectSoundPage(html);
  EXPECT_THAT(html, HasSubstr("class=\"verdict plain\""));
  EXPECT_THAT(html, HasSubstr("There was no validation data"));
  EXPECT_THAT(html, Not(HasSubstr("id=\"evaluation\"")));
  EXPECT_THAT(html, Not(HasSubstr("id=\"samples\"")));
  EXPECT_THAT(html, HasSubstr("id=\"curves\""));
}

TEST(ReportTest, OneStep) {
  const std::string html = RenderReportHtml(Ordinary(1));
  ExpectSoundPage(html);
  EXPECT_THAT(html, HasSubstr("id=\"curves\""));
  EXPECT_THAT(html, Not(HasSubstr("nan%")));
  EXPECT_THAT(html, HasSubstr("h0\""));  // a dot
}

TEST(ReportTest, ValuesThatAreNotFinite) {
  ReportInputs in = Ordinary(20);
  in.metrics[4].set_loss(kNan);
  in.metrics[4].set_skipped(true);
  in.metrics[9].set_grad_norm(kInfinity);
  in.metrics[10].set_loss(1e300);
  in.evaluations[1].mutable_response()->set_loss(kNan);
  in.result.mutable_tuned()->mutable_response()->set_loss(kNan);
  in.result.mutable_tuned()->mutable_response()->set_perplexity(kInfinity);
  in.result.set_best_eval_loss(kInfinity);
  std::string html = RenderReportHtml(in);
  ExpectSoundPage(html);
  EXPECT_THAT(html, HasSubstr("2 updates were skipped"));
  EXPECT_THAT(html, HasSubstr("5 NaN"));  // said under the pointer
  EXPECT_THAT(html, Not(HasSubstr(":nan")));
  EXPECT_THAT(html, Not(HasSubstr("inf%")));

  for (auto& step : in.metrics) {
    step.set_loss(kNan);
    step.set_loss_average(kNan);
    step.set_grad_norm(kNan);
  }
  html = RenderReportHtml(in);
  ExpectSoundPage(html);
  EXPECT_THAT(html, HasSubstr("20 updates were skipped"));
}

TEST(ReportTest, ExtremeNumbers) {
  std::mt19937 random(3);
  const double extremes[] = {0,      -0.0,  1e-320, 1e-30,     1e29,       -1e29, 1e31,
                             -1e308, 1e308, kNan,   kInfinity, -kInfinity, 1,     1 + 1e-15};
  for (int round = 0; round < 200; ++round) {
    ReportInputs in;
    for (int i = 1; i <= 4; ++i) {
      v1::TrainingMetrics step = Step(i, extremes[random() % std::size(extremes)],
                                      extremes[random() % std::size(extremes)]);
      step.set_learning_rate(extremes[random() % std::size(extremes)]);
      step.set_tokens_per_second(extremes[random() % std::size(extremes)]);
      in.metrics.push_back(step);
    }
    in.metrics.back().set_step(random() % 2 ? std::numeric_limits<int64_t>::max() : 4);
    const std::string html = RenderReportHtml(in);
    EXPECT_LT(html.size(), 100'000u);
    for (const char* bad : {"nan%", "inf%", "Mnan", "Lnan", "Minf", "-nan"})
      EXPECT_THAT(html, Not(HasSubstr(bad))) << "round " << round;
  }
}

TEST(ReportTest, AHundredThousandSteps) {
  ReportInputs in = Ordinary(0);
  std::mt19937 random(1);
  for (int64_t i = 1; i <= 100'000; ++i) {
    in.metrics.push_back(Step(i, 2 + 1e-6 * static_cast<double>(random() % 1000000),
                              1e-3 * static_cast<double>(random() % 100000)));
  }
  in.metrics[54'321].set_loss(9.8765);  // a lone spike must be seen
  for (int i = 0; i < 5000; ++i) {
    in.evaluations.push_back(in.evaluations[1]);
    in.evaluations.back().set_step(20 * i);
    in.checkpoints.emplace_back().set_step(20 * i);
    in.dataset.add_warnings("warning " + std::to_string(i));
    *in.result.add_artifacts() = v1::Artifact();
    (*in.dataset.mutable_dropped())["reason " + std::to_string(i)] = i;
  }
  for (int i = 0; i < 300; ++i) {
    v1::GenerationSample& sample = *in.result.add_samples();
    sample.set_prompt(std::string(1 << 16, '<'));
    sample.set_tuned(absl::StrReplaceAll(std::string(1 << 14, '.'), {{".", "日本"}}));
  }
  const std::string html = RenderReportHtml(in);
  EXPECT_LT(html.size(), 1'500'000u);
  EXPECT_THAT(html, HasSubstr("54322 9.877"));
  EXPECT_THAT(html, HasSubstr("rows left out"));
  ExpectSoundPage(html);

  in = Ordinary(100'000);
  EXPECT_LT(RenderReportHtml(in).size(), 250'000u);
}

TEST(ReportTest, FailedExportIsNotGreen) {
  ReportInputs in = Ordinary(3);
  in.exports.push_back({"merged", "logits differ by 0.3 in layer 12"});
  in.result.set_verdict(
      "improved: response perplexity 42 → 8 on 600 samples; verified: gguf q8_0; not verified: "
      "merged; not ready to deploy");
  const std::string html = RenderReportHtml(in);
  EXPECT_THAT(html, HasSubstr("class=\"verdict bad\""));
  EXPECT_THAT(html, HasSubstr("Export merged is not verified: logits differ by 0.3 in layer 12"));
  EXPECT_THAT(html, HasSubstr("✗ logits differ"));
}

std::string FindingTexts(const ReportInputs& in) {
  std::string out;
  for (const ReportFinding& finding : ReportFindings(in))
    absl::StrAppend(&out, finding.warning ? "W " : "i ", finding.text, "\n");
  return out;
}

TEST(ReportFindingsTest, AnOrdinaryRunHasNone) { EXPECT_EQ(FindingTexts(Ordinary(10)), ""); }

TEST(ReportFindingsTest, EachRule) {
  ReportInputs in = Ordinary(10);
  in.evaluations[1].set_step(4);
  in.evaluations.push_back(in.evaluations[1]);
  in.evaluations.back().set_step(8);
  SetLoss(2.5, 7118, in.evaluations.back().mutable_response());
  EXPECT_THAT(FindingTexts(in), HasSubstr("W Overfitting: the evaluation loss was lowest at step 4 "
                                          "(2.080) and rose to 2.500 by step 8. The "
                                          "weights of the best step were kept."));
  in = Ordinary(10);
  SetLoss(5.06, 23030, in.result.mutable_tuned()->mutable_prompt());
  EXPECT_THAT(FindingTexts(in),
              HasSubstr("W Perplexity on the prompts rose from 114.4 to 157.6 (+37.7 %)"));
  in = Ordinary(10);
  in.result.mutable_samples(0)->set_tuned("a kind of kind of kind of kind of thing");
  EXPECT_THAT(
      FindingTexts(in),
      HasSubstr("W The tuned model repeats a phrase over and over in 1 of 1 sample answer."));
  in = Ordinary(10);
  in.result.mutable_samples(0)->set_tuned(in.result.samples(0).base());
  EXPECT_THAT(FindingTexts(in), HasSubstr("i All sample answers of the tuned model equal"));
  in = Ordinary(10);
  for (int i = 0; i < 6; ++i) in.metrics[static_cast<size_t>(i)].set_grad_norm(3);
  EXPECT_THAT(FindingTexts(in), HasSubstr("in 6 of 10 steps"));
  in.metrics.resize(5);
  EXPECT_EQ(FindingTexts(in), "");
  in = Ordinary(10);
  in.dataset.set_overlap(1);
  in.dataset.set_truncated(1059);
  EXPECT_THAT(FindingTexts(in), HasSubstr("W 1 validation sample is also in the training data"));
  EXPECT_THAT(FindingTexts(in), HasSubstr("i 1,059 samples (10.0 %) were longer"));
  in = Ordinary(10);
  in.result.set_peak_device_bytes(130);
  in.result.set_predicted_peak_bytes(100);
  EXPECT_THAT(FindingTexts(in), HasSubstr("over the predicted"));
}

TEST(RepeatsItselfTest, PhrasesOfOneToEightWords) {
  EXPECT_TRUE(RepeatsItself("no no no no"));
  EXPECT_FALSE(RepeatsItself("no no no"));
  EXPECT_TRUE(RepeatsItself("It is a kind of Kind of kind\nof kind of"));
  EXPECT_TRUE(RepeatsItself("x a b c d e f g h a b c d e f g h a b c d e f g h a b c d e f g h y"));
  EXPECT_FALSE(RepeatsItself("one fish two fish red fish blue fish"));
  EXPECT_FALSE(RepeatsItself(""));
}

TEST(HtmlTextTest, Numbers) {
  EXPECT_EQ(GroupedCount(0), "0");
  EXPECT_EQ(GroupedCount(-1234567), "-1,234,567");
  EXPECT_EQ(GroupedCount(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
  EXPECT_EQ(ShortNumber(2e-4), "0.0002");
  EXPECT_EQ(ShortNumber(2e-5), "2e−5");
  EXPECT_EQ(ShortNumber(0.0015), "0.0015");
  EXPECT_EQ(ShortNumber(12345.6), "12,346");
  EXPECT_EQ(ShortNumber(1e20), "1e20");
  EXPECT_EQ(ShortNumber(kNan), "–");
  EXPECT_EQ(PercentChange(40, 10), "−75.0 %");
  EXPECT_EQ(MeasuredNumber(2.45), "2.450");
  EXPECT_EQ(MeasuredNumber(999.96), "1000");
  EXPECT_EQ(MeasuredNumber(9.99961), "10.00");
  EXPECT_EQ(PercentChange(0, 10), "–");
  EXPECT_EQ(BytesText(1023), "1023 B");
  EXPECT_EQ(BytesText(3549278208), "3.31 GiB");
  EXPECT_EQ(BytesText(~uint64_t{0}), "16.0 EiB");
  EXPECT_EQ(SecondsText(59.97), "1 min 00 s");
  EXPECT_EQ(SecondsText(3 * 3600 + 240), "3 h 04 min");
  EXPECT_EQ(SecondsText(kNan), "–");
}

TEST(HtmlTextTest, CutsBetweenCharacters) {
  EXPECT_EQ(ShortenText("日本語", 9), "日本語");
  EXPECT_EQ(ShortenText("日本語", 8), "日本… (3 bytes more)");
  EXPECT_EQ(ShortenText("日本語", 1), "… (9 bytes more)");
}

}  // namespace
}  // namespace finetuned
