#include "worker/evaluation/report.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "proto/base/sha256.h"
#include "proto/spec/spec.h"
#include "worker/evaluation/html_text.h"
#include "worker/evaluation/report_charts.h"
#include "worker/evaluation/report_style.h"

namespace finetuned {
namespace {

// Bounds of the page's size: longer lists show their ends, longer texts their beginning.
constexpr size_t kMostRows = 60, kMostSamples = 40, kMostTextBytes = 4000, kMostNameBytes = 400;

std::string Name(std::string_view text) { return EscapeHtml(ShortenText(text, kMostNameBytes)); }

std::string Row(std::string_view name, std::string_view value_html) {
  return absl::StrCat("<tr><th scope=\"row\">", Name(name), "</th><td>", std::string(value_html),
                      "</td></tr>");
}

std::string Section(const char* id, const char* title, const std::string& body) {
  if (body.empty()) return "";
  return absl::StrCat("<section id=\"", id, "\"><h2>", title, "</h2>", body, "</section>\n");
}

// A table that scrolls by itself where the page is narrow. `head`: cells; one that begins with '#'
// is of numbers.
std::string Table(const std::vector<std::string>& head,
                  const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return "";
  std::string out = "<div class=\"scroll\"><table><thead><tr>";
  for (const std::string& cell : head) {
    const bool number = absl::StartsWith(cell, "#");
    absl::StrAppend(&out, "<th scope=\"col\"", number ? " class=\"num\"" : "", ">",
                    number ? cell.substr(1) : cell, "</th>");
  }
  out += "</tr></thead><tbody>";
  const size_t omitted = rows.size() > kMostRows ? rows.size() - kMostRows : 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (omitted > 0 && i == kMostRows / 2) {
      absl::StrAppend(&out, "<tr><td class=\"soft\" colspan=\"", head.size(), "\">… ",
                      GroupedCount(static_cast<int64_t>(omitted)), " rows left out …</td></tr>");
      i += omitted;
    }
    out += "<tr>";
    for (size_t j = 0; j < rows[i].size(); ++j) {
      absl::StrAppend(&out, "<td", absl::StartsWith(head[j], "#") ? " class=\"num\"" : "", ">",
                      rows[i][j], "</td>");
    }
    out += "</tr>";
  }
  return out + "</tbody></table></div>";
}

std::string Facts(const std::string& rows) {
  return rows.empty() ? ""
                      : absl::StrCat("<table class=\"facts\"><tbody>", rows, "</tbody></table>");
}

bool Measured(const v1::LossSummary& loss) {
  return loss.tokens() > 0 && std::isfinite(loss.loss());
}

double TotalSeconds(const v1::JobResult& result) {
  double total = 0;
  for (const auto& [stage, seconds] : result.stage_seconds()) total += seconds;
  return total;
}

std::string Title(const ReportInputs& in) {
  if (!in.spec.run_name().empty()) return in.spec.run_name();
  const std::string& model = in.spec.model_name_or_path();
  const size_t slash = model.find_last_not_of('/');
  const std::string trimmed = slash == std::string::npos ? "" : model.substr(0, slash + 1);
  const std::string last = trimmed.substr(trimmed.find_last_of('/') + 1);
  return last.empty() ? in.job_id : last;
}

// The verdict is one line of parts: "improved: response perplexity …; verified: …; ready to
// deploy". Its first word says which way it went.
std::string Verdict(const ReportInputs& in) {
  const v1::JobResult& result = in.result;
  std::vector<std::string> parts = absl::StrSplit(result.verdict(), "; ", absl::SkipEmpty());
  if (parts.empty()) parts.push_back("no verdict: the job did not come to its end");
  const char* tone = absl::StartsWith(parts[0], "improved")    ? "good"
                     : absl::StartsWith(parts[0], "regressed") ? "bad"
                     : absl::StartsWith(parts[0], "unchanged") ? "warn"
                                                               : "plain";
  if (absl::StrContains(result.verdict(), "not verified:")) tone = "bad";
  parts[0][0] = absl::ascii_toupper(static_cast<unsigned char>(parts[0][0]));
  std::string out = absl::StrCat("<div class=\"verdict ", tone, "\"><h2>", Name(parts[0]), "</h2>");
  const double before = result.base().response().perplexity(),
               after = result.tuned().response().perplexity();
  if (Measured(result.base().response()) && Measured(result.tuned().response()) &&
      std::isfinite(before) && std::isfinite(after)) {
    absl::StrAppend(&out,
                    "<p>In plain words: at each token of a right answer the base model is as "
                    "unsure as if it chose among ",
                    ShortNumber(before, 3), " equally likely tokens, the tuned model among ",
                    ShortNumber(after, 3), ".</p>");
  }
  for (size_t i = 1; i < parts.size(); ++i) {
    parts[i][0] = absl::ascii_toupper(static_cast<unsigned char>(parts[i][0]));
    absl::StrAppend(&out, "<p>", Name(parts[i]), ".</p>");
  }
  return out + "</div>\n";
}

std::string Tiles(const ReportInputs& in) {
  const v1::JobResult& result = in.result;
  std::string out = "<div class=\"tiles\">";
  const auto tile = [&](const char* name, const std::string& value, const std::string& note) {
    absl::StrAppend(&out, "<div><small>", name, "</small><b>", value, "</b><small>", note,
                    "</small></div>");
  };
  if (Measured(result.tuned().response())) {
    const bool compared = Measured(result.base().response());
    tile("Response perplexity", MeasuredNumber(result.tuned().response().perplexity()),
         compared
             ? absl::StrCat("base ", MeasuredNumber(result.base().response().perplexity()), ", ",
                            PercentChange(result.base().response().perplexity(),
                                          result.tuned().response().perplexity()))
             : "not compared with the base");
  }
  const bool selected = result.best_step() > 0 && std::isfinite(result.best_eval_loss());
  if (selected)
    tile("Best evaluation loss", MeasuredNumber(result.best_eval_loss()),
         absl::StrCat("at step ", GroupedCount(result.best_step())));
  if (!in.metrics.empty()) {
    tile("Training loss", MeasuredNumber(in.metrics.back().loss()),
         absl::StrCat("first step ", MeasuredNumber(in.metrics.front().loss())));
  }
  if (result.steps() > 0) {
    tile("Steps", GroupedCount(result.steps()),
         absl::StrCat(GroupedCount(result.trained_tokens()), " trained of ",
                      GroupedCount(result.total_tokens()), " tokens"));
  }
  if (const double total = TotalSeconds(result); total > 0) {
    const auto training = result.stage_seconds().find("training");
    tile("Time", SecondsText(total),
         training == result.stage_seconds().end()
             ? ""
             : absl::StrCat("training ", SecondsText(training->second)));
  }
  if (result.peak_device_bytes() > 0) {
    tile("Peak memory", BytesText(result.peak_device_bytes()),
         result.predicted_peak_bytes() > 0
             ? absl::StrCat("predicted ", BytesText(result.predicted_peak_bytes()))
             : "");
  }
  if (in.estimate.trainable_parameters() > 0) {
    const auto millions = [](int64_t count) {
      return ShortNumber(static_cast<double>(count) / 1e6, 3) + " M";
    };
    const double share = static_cast<double>(in.estimate.trainable_parameters()) /
                         static_cast<double>(std::max<int64_t>(1, in.estimate.total_parameters()));
    tile("Trained parameters", millions(in.estimate.trainable_parameters()),
         in.estimate.total_parameters() > 0
             ? absl::StrFormat("%.2f %% of %s", 100 * share,
                               millions(in.estimate.total_parameters()))
             : "");
  }
  return out + "</div>\n";
}

std::string Findings(const ReportInputs& in) {
  const std::vector<ReportFinding> findings = ReportFindings(in);
  if (findings.empty()) return "";
  std::string out = "<ul class=\"findings\">";
  for (size_t i = 0; i < std::min(findings.size(), kMostRows); ++i) {
    absl::StrAppend(&out, "<li class=\"", findings[i].warning ? "warn" : "plain", "\">",
                    EscapeHtml(ShortenText(findings[i].text, 2 * kMostNameBytes)), "</li>");
  }
  return out + "</ul>";
}

std::string EvaluationTable(const v1::JobResult& result) {
  const v1::EvaluationResult &base = result.base(), &tuned = result.tuned();
  std::vector<std::vector<std::string>> rows;
  const auto row = [&](const char* what, const v1::LossSummary& b, const v1::LossSummary& t) {
    if (!Measured(b) && !Measured(t)) return;
    const auto show = [](const v1::LossSummary& loss, double value) {
      return loss.tokens() > 0 ? MeasuredNumber(value) : "–";
    };
    std::string change = "–";
    if (Measured(b) && Measured(t)) {
      const double ratio = t.perplexity() / b.perplexity();
      change = absl::StrCat("<span class=\"",
                            ratio < 0.99   ? "down"
                            : ratio > 1.01 ? "up"
                                           : "soft",
                            "\">", PercentChange(b.perplexity(), t.perplexity()), "</span>");
    }
    rows.push_back({what, show(b, b.loss()), show(t, t.loss()), show(b, b.perplexity()),
                    show(t, t.perplexity()), change,
                    GroupedCount(std::max(b.tokens(), t.tokens()))});
  };
  row("<b>Responses</b> (what is trained)", base.response(), tuned.response());
  row("Prompts", base.prompt(), tuned.prompt());
  row("All tokens", base.overall(), tuned.overall());
  if (rows.empty()) return "";
  const int64_t samples = std::max(base.samples(), tuned.samples());
  return absl::StrCat(Table({"Tokens of", "#Loss, base", "#tuned", "#Perplexity, base", "#tuned",
                             "#Change", "#Tokens"},
                            rows),
                      "<p class=\"soft\">Both models on the same ", GroupedCount(samples),
                      " validation samples. Loss is the mean −log p of a token, in nats; "
                      "perplexity is its exponential. Lower is better.</p>");
}

std::string SampleAnswers(const v1::JobResult& result) {
  std::string out;
  const size_t count = std::min(static_cast<size_t>(result.samples_size()), kMostSamples);
  bool base = false, reference = false;
  for (const v1::GenerationSample& sample : result.samples()) {
    base |= !sample.base().empty();
    reference |= !sample.reference().empty();
  }
  for (size_t i = 0; i < count; ++i) {
    const v1::GenerationSample& sample = result.samples(static_cast<int>(i));
    const auto text = [](const std::string& said) {
      return said.empty() ? std::string("<span class=\"soft\">(nothing)</span>")
                          : EscapeHtml(ShortenText(said, kMostTextBytes));
    };
    const auto answer = [&](const char* who, const char* style, const std::string& said) {
      absl::StrAppend(&out, "<div class=\"", style, "\"><small>", who,
                      "</small><div class=\"said\" dir=\"auto\">", text(said), "</div></div>");
    };
    absl::StrAppend(&out, "<article class=\"sample\" id=\"sample-", i + 1,
                    "\"><div class=\"prompt said\" dir=\"auto\">", text(sample.prompt()),
                    "</div><div class=\"answers\">");
    if (base) answer("Base model", "base", sample.base());
    answer("Tuned model", "tuned", sample.tuned());
    if (reference) answer("Reference", "reference", sample.reference());
    out += "</div></article>";
  }
  if (static_cast<size_t>(result.samples_size()) > count) {
    absl::StrAppend(&out, "<p class=\"soft\">", result.samples_size() - static_cast<int>(count),
                    " more are in summary.json.</p>");
  }
  return out;
}

std::string EvaluationHistory(const std::vector<v1::EvaluationResult>& evaluations) {
  std::vector<std::vector<std::string>> rows;
  for (const v1::EvaluationResult& e : evaluations) {
    const bool base = e.model() == "base";
    rows.push_back({base ? "0" : GroupedCount(e.step()),
                    base ? "–" : absl::StrFormat("%.2f", e.epoch()),
                    MeasuredNumber(e.response().loss()), MeasuredNumber(e.response().perplexity()),
                    GroupedCount(e.samples()),
                    absl::StrCat(base ? "base model" : Name(e.verdict()),
                                 e.is_best() ? " <b>★ best</b>" : "")});
  }
  return Table({"#Step", "#Epoch", "#Evaluation loss", "#Perplexity", "#Samples", "Verdict"}, rows);
}

std::string Data(const v1::DatasetStatistics& d) {
  if (d.records() == 0 && d.train_samples() == 0) return "";
  std::string facts = Row("Records read", GroupedCount(d.records()));
  facts += Row("Training samples", absl::StrCat(GroupedCount(d.train_samples()), " (",
                                                GroupedCount(d.train_tokens()), " tokens)"));
  facts += Row("Validation samples",
               d.validation_samples() == 0
                   ? "none"
                   : absl::StrCat(GroupedCount(d.validation_samples()), " (",
                                  GroupedCount(d.validation_tokens()), " tokens)"));
  facts += Row("Trained tokens of an epoch", GroupedCount(d.trained_tokens()));
  if (d.packed_rows() > 0) {
    facts += Row("Packed rows", absl::StrFormat("%s, %.1f %% filled", GroupedCount(d.packed_rows()),
                                                100 * d.packing_efficiency()));
  }
  if (!d.shape().empty()) facts += Row("Record shape", Name(d.shape()));
  if (!d.chat_template().empty()) facts += Row("Chat template", Name(d.chat_template()));
  facts += Row("Truncated samples", GroupedCount(d.truncated()));
  facts += Row("Validation texts also in training", GroupedCount(d.overlap()));

  std::string lengths;
  std::vector<std::vector<std::string>> rows;
  const auto row = [&](const char* name, const v1::LengthStatistics& l) {
    if (l.max() > 0)
      rows.push_back({name, ShortNumber(l.mean()), GroupedCount(l.p50()), GroupedCount(l.p95()),
                      GroupedCount(l.max())});
  };
  row("Sample", d.total_tokens());
  row("Prompt", d.prompt_tokens());
  row("Response", d.response_tokens());
  if (!rows.empty())
    lengths = "<h3>Tokens</h3>" + Table({"", "#Mean", "#Median", "#95 %", "#Longest"}, rows);

  rows.clear();
  std::vector<std::pair<int64_t, std::string>> dropped;
  for (const auto& [reason, count] : d.dropped()) dropped.emplace_back(-count, reason);
  std::sort(dropped.begin(), dropped.end());
  for (const auto& [count, reason] : dropped) {
    rows.push_back({Name(absl::StrReplaceAll(reason, {{"_", " "}})), GroupedCount(-count)});
  }
  std::string lost =
      "<h3>Records left out</h3>" +
      (rows.empty() ? "<p class=\"soft\">None.</p>" : Table({"Reason", "#Records"}, rows));
  return absl::StrCat("<div class=\"cols\"><div>", Facts(facts), "</div><div>", lengths, lost,
                      "</div></div>");
}

std::string TimeAndMemory(const ReportInputs& in) {
  const double total = TotalSeconds(in.result);
  std::string times;
  if (total > 0) {
    times = "<h3>Time by stage</h3><table class=\"bars\"><tbody>";
    for (int s = v1::PREPARING_DATA; s <= v1::EXPORTING; ++s) {
      const std::string stage = absl::AsciiStrToLower(v1::Stage_Name(static_cast<v1::Stage>(s)));
      const auto found = in.result.stage_seconds().find(stage);
      if (found == in.result.stage_seconds().end()) continue;
      absl::StrAppend(&times, "<tr><td>", absl::StrReplaceAll(stage, {{"_", " "}}),
                      "</td><td class=\"num\">", SecondsText(found->second),
                      "</td><td style=\"width:40%\"><div class=\"bar\" style=\"width:",
                      absl::StrFormat("%.1f%%", 100 * found->second / total),
                      "\"></div></td></tr>");
    }
    absl::StrAppend(
        &times, "<tr><td><b>all</b></td><td class=\"num\"><b>", SecondsText(total), "</b></td><td>",
        in.estimate.seconds() > 0 ? absl::StrCat("<span class=\"soft\">estimated ",
                                                 SecondsText(in.estimate.seconds()), "</span>")
                                  : "",
        "</td></tr></tbody></table>");
  }
  std::string facts;
  if (in.result.peak_device_bytes() > 0)
    facts += Row("Peak on the device", BytesText(in.result.peak_device_bytes()));
  if (in.result.predicted_peak_bytes() > 0)
    facts += Row("Predicted peak", BytesText(in.result.predicted_peak_bytes()));
  if (in.result.peak_host_bytes() > 0)
    facts += Row("Peak of host memory", BytesText(in.result.peak_host_bytes()));
  if (in.estimate.full_finetuning_bytes() > 0)
    facts += Row("Training all weights would need", BytesText(in.estimate.full_finetuning_bytes()));
  std::vector<std::pair<uint64_t, std::string>> categories;
  for (const auto& [name, bytes] : in.estimate.memory().device_bytes())
    categories.emplace_back(bytes, name);
  std::sort(categories.rbegin(), categories.rend());
  for (const auto& [bytes, name] : categories) {
    if (bytes > 0) facts += Row(absl::StrCat("Predicted: ", name), BytesText(bytes));
  }
  if (times.empty() && facts.empty()) return "";
  return absl::StrCat("<div class=\"cols\"><div>", times, "</div><div>",
                      facts.empty() ? "" : "<h3>Memory</h3>" + Facts(facts), "</div></div>");
}

std::string Exports(const ReportInputs& in) {
  std::string out;
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, check] : in.exports) {
    const bool good = absl::StartsWith(check, "verified");
    rows.push_back({Name(name), absl::StrCat("<span class=\"", good ? "down\">✓ " : "up\">✗ ",
                                             Name(check), "</span>")});
  }
  if (!rows.empty()) out += Table({"Export", "Check after writing"}, rows);
  rows.clear();
  for (const v1::Artifact& artifact : in.result.artifacts()) {
    rows.push_back({absl::StrCat("<code>", Name(artifact.path()), "</code>"),
                    BytesText(artifact.size_bytes()),
                    absl::StrCat("<code>", Name(artifact.sha256()), "</code>")});
  }
  if (!rows.empty())
    absl::StrAppend(&out, out.empty() ? "" : "<h3>Files</h3>",
                    Table({"File", "#Size", "SHA-256"}, rows));
  return out;
}

std::string Checkpoints(const ReportInputs& in) {
  std::vector<std::vector<std::string>> rows;
  for (const v1::Checkpoint& c : in.checkpoints) {
    uint64_t bytes = 0;
    for (const auto& [part, size] : c.bytes_by_part()) bytes += size;
    rows.push_back(
        {GroupedCount(c.step()), absl::StrFormat("%.2f", c.epoch()),
         c.has_eval_loss() ? MeasuredNumber(c.eval_loss()) : "–", Name(c.reason()),
         bytes > 0 ? BytesText(bytes) : "–",
         absl::StrCat(c.verified() ? "verified" : "", c.is_best() ? " <b>★ best</b>" : "")});
  }
  return Table({"#Step", "#Epoch", "#Evaluation loss", "Saved for", "#Size", ""}, rows);
}

// A value as a job file has it.
std::string ValueText(const SpecValue& value) {
  switch (value.kind) {
    case SpecValue::Kind::kNull:
      return "null";
    case SpecValue::Kind::kScalar:
      return value.scalar;
    case SpecValue::Kind::kList: {
      std::string out;
      for (const SpecValue& item : value.items)
        absl::StrAppend(&out, out.empty() ? "" : ", ", ValueText(item));
      return absl::StrCat("[", out, "]");
    }
    case SpecValue::Kind::kMap: {
      std::string out;
      for (const auto& [key, item] : value.entries)
        absl::StrAppend(&out, out.empty() ? "" : ", ", key, ": ", ValueText(item));
      return absl::StrCat("{", out, "}");
    }
  }
  return "";
}

// Tables of one block each: its keys and their values. Keys that hold further blocks are written
// with a dot.
using Settings =
    std::vector<std::pair<std::string, std::vector<std::pair<std::string, std::string>>>>;
void CollectSettings(const SpecValue& tree, const std::string& block, const std::string& prefix,
                     Settings* out) {
  for (const auto& [key, value] : tree.entries) {
    const std::string path = prefix.empty() ? key : absl::StrCat(prefix, ".", key);
    if (value.kind == SpecValue::Kind::kMap && IsBlock(path)) {
      CollectSettings(value, block.empty() ? key : block, path, out);
      continue;
    }
    const std::string shown = block.empty() ? path : path.substr(block.size() + 1);
    auto at = std::find_if(out->begin(), out->end(),
                           [&](const auto& entry) { return entry.first == block; });
    if (at == out->end()) at = out->insert(out->end(), {block, {}});
    at->second.emplace_back(shown, ValueText(value));
  }
}

std::string SettingsTables(const v1::JobSpec& spec) {
  Settings settings, defaults;
  CollectSettings(SpecToTree(spec), "", "", &settings);
  CollectSettings(SpecToTree(ResolveDefaults(v1::JobSpec())), "", "", &defaults);
  std::map<std::string, std::string> usual;
  for (const auto& [block, keys] : defaults) {
    for (const auto& [key, value] : keys) usual[absl::StrCat(block, ".", key)] = value;
  }
  std::string out;
  for (const auto& [block, keys] : settings) {
    absl::StrAppend(&out, "<div><h3>", block.empty() ? "job" : Name(block), "</h3><table><tbody>");
    for (const auto& [key, value] : keys) {
      const auto found = usual.find(absl::StrCat(block, ".", key));
      const bool set = found == usual.end() || found->second != value;
      absl::StrAppend(&out, "<tr><td class=\"mono\">", Name(key), "</td><td class=\"mono",
                      set ? " set" : "", "\">", Name(value), "</td></tr>");
    }
    out += "</tbody></table></div>";
  }
  if (out.empty()) return "";
  return absl::StrCat(
      "<p class=\"soft\">Every key as the run used it; bold where it differs from the "
      "default.</p><div class=\"settings\">",
      out, "</div>");
}

std::string Provenance(const ReportInputs& in) {
  std::string rows;
  for (const auto& [name, value] : in.provenance)
    absl::StrAppend(&rows, Row(name, absl::StrCat("<code>", Name(value), "</code>")));
  return Facts(rows);
}

}  // namespace

std::string RenderReportHtml(const ReportInputs& in) {
  const std::string title = Title(in);
  // The one script is known by its hash, so no other can run even if a text of the job came to be
  // read as one.
  const std::string script_hash =
      absl::Base64Escape(absl::HexStringToBytes(Sha256Hex(kReportScript)));
  std::string out = absl::StrCat(
      "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta "
      "charset=\"utf-8\"/>",
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; script-src 'sha256-",
      script_hash,
      "'\"/><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><title>",
      Name(title), " · fine-tuning report</title><style>", kReportStyle,
      "</style></head>\n<body><main>\n<small>Fine-tuning report</small><h1 dir=\"auto\">",
      Name(title), "</h1><p class=\"sub\">");
  if (!in.spec.model_name_or_path().empty())
    absl::StrAppend(&out, "<span>base model ", Name(in.spec.model_name_or_path()), "</span>");
  if (!in.estimate.device().empty())
    absl::StrAppend(&out, "<span>", Name(in.estimate.device()), "</span>");
  absl::StrAppend(&out, "<span>job ", Name(in.job_id), "</span></p>\n", Verdict(in), Tiles(in));
  out += Section("findings", "What to look at", Findings(in));
  out += Section("evaluation", "Base and tuned model", EvaluationTable(in.result));
  out += Section("samples", "Sample answers", SampleAnswers(in.result));
  out += Section("curves", "Training", ReportCharts(in));
  out += Section("evaluations", "Evaluations", EvaluationHistory(in.evaluations));
  out += Section("data", "Data", Data(in.dataset));
  out += Section("resources", "Time and memory", TimeAndMemory(in));
  out += Section("exports", "What there is to take home", Exports(in));
  out += Section("checkpoints", "Checkpoints", Checkpoints(in));
  out += Section("settings", "Settings", SettingsTables(in.spec));
  out += Section("provenance", "Provenance", Provenance(in));
  absl::StrAppend(&out,
                  "<footer>The same facts for programs are in summary.json, every step in "
                  "metrics.jsonl.</footer></main><script>",
                  kReportScript, "</script></body></html>\n");
  return out;
}

}  // namespace finetuned
