#include "client/result.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli.h"
#include "client/format.h"

namespace finetuned {
namespace {

constexpr int kShownSamples = 3;
constexpr int kShownArtifacts = 12;
constexpr size_t kShownText = 600;

std::string Change(double base, double tuned) {
  if (!(base > 0)) return "";
  return absl::StrFormat("%+.1f %%", 100 * (tuned - base) / base);
}

void PrintComparison(const Output& out, const v1::JobResult& result) {
  if (!result.has_tuned()) return;
  std::vector<std::vector<std::string>> rows;
  if (!result.has_base()) {
    rows = {{"", "tuned"},
            {"loss (response)", FormatLoss(result.tuned().response().loss())},
            {"perplexity", absl::StrFormat("%.3f", result.tuned().response().perplexity())}};
  } else {
    const auto row = [&](const char* name, const v1::LossSummary& base,
                         const v1::LossSummary& tuned) {
      if (base.tokens() == 0 && tuned.tokens() == 0) return;
      rows.push_back({absl::StrCat("loss, ", name), FormatLoss(base.loss()),
                      FormatLoss(tuned.loss()), Change(base.loss(), tuned.loss())});
      rows.push_back({absl::StrCat("perplexity, ", name),
                      absl::StrFormat("%.3f", base.perplexity()),
                      absl::StrFormat("%.3f", tuned.perplexity()),
                      Change(base.perplexity(), tuned.perplexity())});
    };
    rows.push_back({"", "base", "tuned", "change"});
    row("response", result.base().response(), result.tuned().response());
    row("prompt", result.base().prompt(), result.tuned().prompt());
    row("all tokens", result.base().overall(), result.tuned().overall());
  }
  out.Table(rows);
  out.Line("");
}

void PrintBlock(const Output& out, const char* name, Color color, std::string_view text) {
  const std::string shown = Printable(text.substr(0, kShownText), false);
  const size_t width = std::min<size_t>(out.width(), 120) - 13;
  bool first = true;
  for (const std::string& line : Wrap(shown, width)) {
    out.Line(absl::StrCat("  ", out.Paint(color, absl::StrFormat("%-10s", first ? name : "")), " ",
                          line));
    first = false;
  }
}

void PrintSamples(const Output& out, const v1::JobResult& result) {
  const int count = std::min(kShownSamples, result.samples_size());
  for (int i = 0; i < count; ++i) {
    const v1::GenerationSample& sample = result.samples(i);
    PrintBlock(out, "prompt", Color::kBold, sample.prompt());
    if (!sample.reference().empty()) PrintBlock(out, "reference", Color::kDim, sample.reference());
    PrintBlock(out, "base", Color::kYellow, sample.base());
    PrintBlock(out, "tuned", Color::kGreen, sample.tuned());
    out.Line("");
  }
  if (result.samples_size() > count) {
    out.Line(
        absl::StrCat("  … and ", result.samples_size() - count, " more answers in summary.json\n"));
  }
}

void PrintArtifacts(const Output& out, const v1::Job& job) {
  const v1::JobResult& result = job.result();
  if (result.artifacts_size() == 0) return;
  uint64_t total = 0;
  std::vector<std::vector<std::string>> rows = {{"artifact", "size"}};
  for (const v1::Artifact& artifact : result.artifacts()) {
    total += artifact.size_bytes();
    if (static_cast<int>(rows.size()) <= kShownArtifacts) {
      rows.push_back({Printable(artifact.path(), true), FormatBytes(artifact.size_bytes())});
    }
  }
  if (result.artifacts_size() > kShownArtifacts) {
    rows.push_back(
        {absl::StrCat("… and ", result.artifacts_size() - kShownArtifacts, " more"), ""});
  }
  rows.push_back({"together", FormatBytes(total)});
  out.Table(rows);
  out.Line(absl::StrCat("\ntake them home: finetune download ", job.job_id(), " --to out/"));
}

}  // namespace

void PrintResult(const Output& out, const v1::Job& job) {
  const v1::JobResult& result = job.result();
  if (job.submitted_spec().kind() == "generate") {
    for (const v1::GenerationSample& sample : result.samples()) {
      const std::string& answer = sample.tuned().empty() ? sample.base() : sample.tuned();
      if (result.samples_size() > 1 && !out.quiet()) {
        out.Line(out.Paint(Color::kBold, Printable(sample.prompt(), false)));
      }
      out.Line(Printable(answer, false));
    }
    return;
  }
  out.Line("");
  PrintComparison(out, result);
  PrintSamples(out, result);
  PrintArtifacts(out, job);
  std::string facts;
  if (result.steps() > 0) {
    absl::StrAppend(&facts, result.steps(), " steps, ", FormatCount(result.trained_tokens()),
                    " trained tokens");
  }
  const uint64_t peak =
      result.peak_device_bytes() > 0 ? result.peak_device_bytes() : result.peak_host_bytes();
  if (peak > 0) {
    absl::StrAppend(&facts, facts.empty() ? "" : ", ", "peak memory ", FormatBytes(peak));
    if (result.predicted_peak_bytes() > 0) {
      absl::StrAppend(&facts, " (predicted ", FormatBytes(result.predicted_peak_bytes()), ")");
    }
  }
  if (job.end_time().seconds() > 0 && job.start_time().seconds() > 0) {
    absl::StrAppend(
        &facts, facts.empty() ? "" : ", ", "ran for ",
        FormatSeconds(static_cast<double>(job.end_time().seconds() - job.start_time().seconds())));
  }
  if (!facts.empty()) out.Line(facts);
  if (!result.verdict().empty()) {
    out.Line(absl::StrCat("\n", out.Paint(Color::kBold, "verdict: "),
                          Printable(result.verdict(), true)));
  }
}

void PrintFailure(const Output& out, const v1::Job& job) {
  const v1::Failure& failure = job.failure();
  const auto line = [&](std::string_view text) {
    bool first = true;
    for (const std::string& part :
         Wrap(Printable(text, false), std::min<size_t>(out.width(), 120) - 4)) {
      out.Plain(absl::StrCat("│ ", first ? "" : "  ", part));
      first = false;
    }
  };
  std::string where;
  if (failure.stage() != v1::STAGE_UNSPECIFIED)
    where = absl::StrCat(" while ", StageText(failure.stage()));
  if (failure.step() > 0) absl::StrAppend(&where, " at step ", failure.step());
  out.Plain(absl::StrCat("┌ job ", job.job_id(),
                         " failed: ", v1::FailureReason_Name(failure.reason()), where));
  line(failure.message());
  for (const std::string& cause : failure.causes()) line(absl::StrCat("because: ", cause));
  if (!failure.field().empty()) line(absl::StrCat("key: ", failure.field()));
  if (failure.memory_requested_bytes() > 0) {
    line(absl::StrCat("memory: asked for ", FormatBytes(failure.memory_requested_bytes()), ", ",
                      FormatBytes(failure.memory_available_bytes()), " available"));
  }
  if (failure.sample_ids_size() > 0) {
    std::string ids;
    for (const std::string& id : failure.sample_ids()) absl::StrAppend(&ids, " ", id);
    line(absl::StrCat("samples:", ids.substr(0, 400)));
  }
  for (const std::string& tried : failure.recovery()) line(absl::StrCat("tried: ", tried));
  for (const std::string& suggestion : failure.suggestions()) {
    // A suggestion is "key=value"; some are sentences.
    const bool setting =
        suggestion.find('=') != std::string::npos && suggestion.find(' ') > suggestion.find('=');
    line(setting ? absl::StrCat("try: finetune rerun ", job.job_id(), " --set ", suggestion)
                 : absl::StrCat("try: ", suggestion));
  }
  out.Plain("└");
}

int PrintEnd(const Output& out, const v1::Job& job) {
  if (job.state() == v1::SUCCEEDED) {
    PrintResult(out, job);
    return kOk;
  }
  if (job.state() == v1::FAILED) {
    if (job.result().artifacts_size() > 0 || job.result().has_tuned()) PrintResult(out, job);
    PrintFailure(out, job);
    return kFailed;
  }
  out.Plain(absl::StrCat("job ", job.job_id(), " is ", StateText(job.state())));
  return kFailed;
}

}  // namespace finetuned
