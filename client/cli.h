// Start here: what a subcommand is, and what it is given to work with.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/connection.h"
#include "client/output.h"

namespace CLI {
class App;
}

namespace finetuned {

// Exit codes of finetune; scripts rely on them.
enum ExitCode {
  kOk = 0,
  kFailed = 1,        // the job (or the call) failed
  kUsage = 2,         // wrong command line, wrong job file, or a spec the server refuses
  kUnreachable = 3,   // no server there
  kNotPermitted = 4,  // not logged in, or not allowed
  kInterrupted = 130  // Ctrl-C; a job that was watched goes on
};

// What a running command has: the connection, and where to print.
class Context {
 public:
  Context(Connection* connection, Output* output) : connection(*connection), out(*output) {}

  Connection& connection;
  Output& out;

  // Prints a failed call to standard error, problems, cures and all, and gives its exit code.
  // `lines` (of `file`) lead from a key to its line in the job file.
  int Fail(const grpc::Status& status, const std::string& file = "",
           const std::map<std::string, int>& lines = {});
  // The same for an error of our own.
  int Fail(const absl::Status& status);
  int Usage(const std::string& message);
};

using Run = std::function<int(Context&)>;

// A subcommand: one file in commands/ that defines a const Command named kSomething, and one line
// in commands.def.
struct Command {
  const char* name;
  const char* description;
  // Command lines for --help, one a line, each starting with "finetune".
  const char* example;
  // Adds options to `app` and returns what runs after parsing. The options' storage is owned by the
  // returned function.
  Run (*setup)(CLI::App& app);
};

// In the order of commands.def.
const std::vector<const Command*>& Commands();

// The whole program; the exit code.
int Main(int argc, char** argv);

// The command line parser with every command, for completion scripts. `runs`, if given, gets each
// command's function.
std::unique_ptr<CLI::App> MakeApp(GlobalOptions* options, std::vector<Run>* runs);

}  // namespace finetuned
