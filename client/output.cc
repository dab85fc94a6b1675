#include "client/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/format.h"
#include "client/yaml_spec.h"
#include "google/protobuf/util/json_util.h"
#include "nlohmann/json.hpp"

namespace finetuned {
namespace {

void Write(FILE* file, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), file);
  std::fflush(file);
}

SpecValue FromJson(const nlohmann::ordered_json& json) {
  if (json.is_object()) {
    SpecValue map = SpecValue::Map();
    for (const auto& [key, value] : json.items()) map.entries.emplace_back(key, FromJson(value));
    return map;
  }
  if (json.is_array()) {
    SpecValue list = SpecValue::List();
    for (const auto& value : json) list.items.push_back(FromJson(value));
    return list;
  }
  if (json.is_null()) return {};
  return SpecValue::Scalar(json.is_string() ? json.get<std::string>() : json.dump());
}

std::string EnumText(const std::string& name) {
  return absl::StrReplaceAll(absl::AsciiStrToLower(name), {{"_", " "}});
}

}  // namespace

Output::Output(const GlobalOptions& options) : format_(options.output), quiet_(options.quiet) {
  terminal_ = isatty(STDOUT_FILENO) == 1;
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool color = (no_color == nullptr || *no_color == '\0') &&
                     (term == nullptr || std::string_view(term) != "dumb");
  color_out_ = color && terminal_;
  color_err_ = color && isatty(STDERR_FILENO) == 1;
}

size_t Output::width() const {
  winsize size{};
  if (terminal_ && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) {
    return size.ws_col;
  }
  return 100;
}

std::string Output::Paint(Color color, std::string_view text) const {
  static constexpr const char* kCodes[] = {"", "31", "32", "33", "34", "2", "1"};
  if (!color_out_ || color == Color::kNone) return std::string(text);
  return absl::StrCat("\x1b[", kCodes[static_cast<int>(color)], "m", std::string(text), "\x1b[0m");
}

void Output::Print(std::string_view text) const { Write(stdout, text); }
void Output::Line(std::string_view text) const {
  Write(stdout, absl::StrCat(std::string(text), "\n"));
}
void Output::Plain(std::string_view text) const {
  Write(stderr, absl::StrCat(std::string(text), "\n"));
}
void Output::Note(std::string_view text) const {
  if (!quiet_) Plain(text);
}
void Output::Warn(std::string_view text) const {
  Plain(absl::StrCat(color_err_ ? "\x1b[33mwarning:\x1b[0m " : "warning: ", std::string(text)));
}
void Output::Error(std::string_view text) const {
  Plain(absl::StrCat(color_err_ ? "\x1b[31merror:\x1b[0m " : "error: ", std::string(text)));
}

void Output::Table(std::vector<std::vector<std::string>> rows) const {
  if (rows.empty()) return;
  for (std::string& cell : rows[0]) cell = Paint(Color::kBold, cell);
  Print(FormatTable(rows));
}

void Output::Message(const google::protobuf::Message& message, bool compact) const {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.add_whitespace = json() && !compact;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) {
    Error(absl::StrCat("the answer cannot be printed: ", status.ToString()));
    return;
  }
  if (format_ == "yaml") {
    const auto parsed = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (compact) Print("---\n");
    Print(EmitYaml(FromJson(parsed)));
    return;
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  Line(text);
}

std::string ProblemText(const v1::Problem& problem, std::string_view file, int line) {
  std::string text;
  if (line > 0) absl::StrAppend(&text, std::string(file), ":", line, ": ");
  if (!problem.field().empty()) absl::StrAppend(&text, problem.field(), ": ");
  absl::StrAppend(&text, Printable(problem.message(), false));
  if (!problem.allowed().empty()) {
    absl::StrAppend(&text,
                    problem.severity() == v1::Problem::WARNING ? "\n  better: " : "\n  allowed: ",
                    Printable(problem.allowed(), false));
  }
  return text;
}

std::string StateText(v1::JobState state) { return EnumText(v1::JobState_Name(state)); }
std::string StageText(v1::Stage stage) { return EnumText(v1::Stage_Name(stage)); }

Color StateColor(v1::JobState state) {
  switch (state) {
    case v1::SUCCEEDED:
      return Color::kGreen;
    case v1::FAILED:
      return Color::kRed;
    case v1::RUNNING:
    case v1::STARTING:
      return Color::kBlue;
    case v1::CANCELLED:
    case v1::CANCELLING:
    case v1::PAUSED:
    case v1::PAUSING:
      return Color::kYellow;
    default:
      return Color::kNone;
  }
}

bool IsFinal(v1::JobState state) {
  return state == v1::SUCCEEDED || state == v1::FAILED || state == v1::CANCELLED;
}

}  // namespace finetuned
