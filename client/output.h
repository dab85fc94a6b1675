// Where and how a command prints: tables for people, JSON or YAML for programs, colour on a
// terminal.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "finetuned/v1/service.pb.h"

namespace google::protobuf {
class Message;
}

namespace finetuned {

struct GlobalOptions {
  std::string server;
  std::string context;
  std::string output = "table";
  bool quiet = false;
};

enum class Color { kNone, kRed, kGreen, kYellow, kBlue, kDim, kBold };

class Output {
 public:
  // Looks at the terminal, NO_COLOR and TERM.
  explicit Output(const GlobalOptions& options);

  // --output json or yaml.
  bool machine() const { return format_ != "table"; }
  bool json() const { return format_ == "json"; }
  bool quiet() const { return quiet_; }
  // Standard output is a terminal.
  bool terminal() const { return terminal_; }
  // Columns of the terminal; 100 when there is none.
  size_t width() const;

  std::string Paint(Color color, std::string_view text) const;

  void Print(std::string_view text) const;  // standard output, as it is
  void Line(std::string_view text) const;   // with a newline
  void Note(std::string_view text) const;   // for people, on standard error; not with --quiet
  void Warn(std::string_view text) const;   // "warning: …" on standard error
  void Error(std::string_view text) const;  // "error: …" on standard error
  void Plain(std::string_view text) const;  // standard error, as it is, with a newline
  // Header in bold, then the rows.
  void Table(std::vector<std::vector<std::string>> rows) const;
  // The message as JSON or YAML with the proto's field names; `compact` is one line of JSON.
  void Message(const google::protobuf::Message& message, bool compact = false) const;

 private:
  std::string format_;
  bool quiet_;
  bool terminal_;
  bool color_out_;
  bool color_err_;
};

// A problem for people: "FILE:7: lora.r: 100000 is too large" and "allowed: …" below.
std::string ProblemText(const v1::Problem& problem, std::string_view file, int line);

// "running", "preparing data": enum names in people's spelling.
std::string StateText(v1::JobState state);
std::string StageText(v1::Stage stage);
Color StateColor(v1::JobState state);
bool IsFinal(v1::JobState state);

}  // namespace finetuned
