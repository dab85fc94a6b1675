#include "client/cli.h"

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/format.h"
#include "proto/errors/rpc_errors.h"
#include "proto/spec/key_table.h"

namespace finetuned {

#define COMMAND(name) extern const Command k##name;
#include "client/commands.def"
#undef COMMAND

const std::vector<const Command*>& Commands() {
  static const auto* const commands = new std::vector<const Command*>{
#define COMMAND(name) &k##name,
#include "client/commands.def"
#undef COMMAND
  };
  return *commands;
}

namespace {

int ExitCodeOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return kUsage;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kUnreachable;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kNotPermitted;
    case absl::StatusCode::kCancelled:
      return Interrupted() ? kInterrupted : kFailed;
    default:
      return kFailed;
  }
}

// The word a mistyped command was meant to be; empty when the first word is a command or nothing is
// near.
std::string MeantCommand(int argc, char** argv, std::string* typed) {
  std::vector<std::string> names;
  for (const Command* command : Commands()) names.push_back(command->name);
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--server" || word == "--context" || word == "--output" || word == "-o") {
      ++i;
      continue;
    }
    if (word.empty() || word[0] == '-') continue;
    for (const std::string& name : names) {
      if (name == word) return "";
    }
    *typed = word;
    return NearestText(word, names);
  }
  return "";
}

}  // namespace

int Context::Fail(const grpc::Status& status, const std::string& file,
                  const std::map<std::string, int>& lines) {
  if (Interrupted()) return kInterrupted;
  const absl::Status error = FromGrpcStatus(status);
  const std::vector<v1::Problem> problems = ProblemsOf(error);
  if (problems.empty()) {
    const std::string message = Printable(std::string(error.message()), false);
    out.Error(message.empty() ? absl::StatusCodeToString(error.code()) : message);
  }
  for (const v1::Problem& problem : problems) {
    const auto line = lines.find(problem.field());
    const std::string text = ProblemText(problem, file, line == lines.end() ? 0 : line->second);
    problem.severity() == v1::Problem::WARNING ? out.Warn(text) : out.Error(text);
  }
  for (const auto& [description, cure] : HelpOf(error)) {
    out.Plain(absl::StrCat("  ", Printable(description, true), ": ", Printable(cure, true)));
  }
  return ExitCodeOf(error.code());
}

int Context::Fail(const absl::Status& status) {
  if (Interrupted()) return kInterrupted;
  out.Error(std::string(status.message()));
  return ExitCodeOf(status.code());
}

int Context::Usage(const std::string& message) {
  out.Error(message);
  return kUsage;
}

std::unique_ptr<CLI::App> MakeApp(GlobalOptions* options, std::vector<Run>* runs) {
  auto app = std::make_unique<CLI::App>(
      "Fine-tune language models on a finetuned server: submit jobs, watch them, take the results "
      "home.",
      "finetune");
  app->option_defaults()->always_capture_default(false);
  app->add_option("--server", options->server,
                  "HOST:PORT or unix:PATH of the server (environment: FINETUNED_SERVER; default "
                  "127.0.0.1:50051)")
      ->type_name("ADDRESS");
  app->add_option("--context", options->context,
                  "named server of the configuration file (~/.config/finetuned/config.yaml)")
      ->type_name("NAME");
  app->add_option("-o,--output", options->output, "table, json or yaml")
      ->check(CLI::IsMember({"table", "json", "yaml"}))
      ->type_name("FORMAT");
  app->add_flag("-q,--quiet", options->quiet, "print results alone, no notes");
  app->set_version_flag("--version", "finetune " FINETUNED_VERSION, "print this program's version");
  app->require_subcommand(1);
  app->footer(
      "Examples:\n  finetune submit job.yaml --watch\n  finetune download JOB --to out/\n"
      "\n`finetune COMMAND --help` shows a command's options and examples.\n"
      "Exit codes: 0 success, 1 failed, 2 usage, 3 server unreachable, 4 not permitted, 130 "
      "interrupted.");
  for (const Command* command : Commands()) {
    CLI::App* sub = app->add_subcommand(command->name, command->description);
    sub->fallthrough();
    sub->footer(
        absl::StrCat("Examples:\n  ", absl::StrReplaceAll(command->example, {{"\n", "\n  "}})));
    Run run = command->setup(*sub);
    if (runs != nullptr) runs->push_back(std::move(run));
  }
  return app;
}

int Main(int argc, char** argv) {
  GlobalOptions options;
  std::vector<Run> runs;
  const std::unique_ptr<CLI::App> app = MakeApp(&options, &runs);
  std::string typed;
  if (const std::string meant = MeantCommand(argc, argv, &typed); !meant.empty()) {
    Output(options).Error(
        absl::StrCat("there is no command ", typed, "; did you mean `finetune ", meant, "`?"));
    return kUsage;
  }
  try {
    app->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app->exit(error);  // --help
    const Output output(options);
    output.Error(error.what());
    const auto chosen = app->get_subcommands();
    output.Plain(chosen.empty()
                     ? "  see `finetune --help`"
                     : absl::StrCat("  see `finetune ", chosen[0]->get_name(), " --help`"));
    return kUsage;
  }
  InstallInterruptHandler();
  Output output(options);
  absl::StatusOr<ServerChoice> server = ChooseServer(options.server, options.context, ConfigPath());
  if (!server.ok()) {
    output.Error(std::string(server.status().message()));
    return kUsage;
  }
  Connection connection(*std::move(server));
  Context context(&connection, &output);
  const std::string chosen = app->get_subcommands()[0]->get_name();
  for (size_t i = 0; i < Commands().size(); ++i) {
    if (chosen == Commands()[i]->name) return runs[i](context);
  }
  return kUsage;
}

}  // namespace finetuned
