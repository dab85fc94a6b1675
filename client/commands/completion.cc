#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/cli.h"

namespace finetuned {
namespace {

struct Words {
  std::string command;
  std::string description;
  std::vector<std::string> options;
};

// Commands and their long options, read from the parser itself.
std::vector<Words> Collect() {
  GlobalOptions unused;
  const std::unique_ptr<CLI::App> app = MakeApp(&unused, nullptr);
  std::vector<std::string> global;
  for (const CLI::Option* option : app->get_options()) {
    for (const std::string& name : option->get_lnames()) global.push_back("--" + name);
  }
  std::vector<Words> all;
  for (const CLI::App* sub : app->get_subcommands(nullptr)) {
    Words words{sub->get_name(), sub->get_description(), {}};
    for (const CLI::Option* option : sub->get_options()) {
      for (const std::string& name : option->get_lnames()) words.options.push_back("--" + name);
    }
    for (const std::string& name : global) {
      if (name != "--help") words.options.push_back(name);
    }
    all.push_back(std::move(words));
  }
  return all;
}

std::string CommandList(const std::vector<Words>& all) {
  return absl::StrJoin(all, " ",
                       [](std::string* out, const Words& words) { *out += words.command; });
}

std::string Bash(const std::vector<Words>& all) {
  std::string cases;
  for (const Words& words : all) {
    absl::StrAppend(&cases, "    ", words.command, ") words=\"", absl::StrJoin(words.options, " "),
                    "\" ;;\n");
  }
  return absl::StrCat(
      "# bash completion for finetune; load it with: source <(finetune completion bash)\n"
      "_finetune() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} command= words= i\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case ${COMP_WORDS[i]} in\n"
      "      --server|--context|--output|-o) ((i++)) ;;\n"
      "      -*) ;;\n"
      "      *) command=${COMP_WORDS[i]}; break ;;\n"
      "    esac\n"
      "  done\n"
      "  case $command in\n"
      "    \"\") words=\"",
      CommandList(all), " --server --context --output --quiet --help\" ;;\n", cases,
      "  esac\n"
      "  if [[ $command == completion && $current != -* ]]; then words=\"bash zsh fish\"; fi\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  if [[ ${#COMPREPLY[@]} -eq 0 ]]; then COMPREPLY=($(compgen -f -- \"$current\")); fi\n"
      "}\n"
      "complete -o filenames -F _finetune finetune\n");
}

std::string Zsh(const std::vector<Words>& all) {
  std::string descriptions, cases;
  for (const Words& words : all) {
    absl::StrAppend(&descriptions, "    '", words.command, ":",
                    absl::StrReplaceAll(words.description, {{"'", "'\\''"}, {":", "\\:"}}), "'\n");
    absl::StrAppend(&cases, "    ", words.command, ") compadd -- ",
                    absl::StrJoin(words.options, " "), " ;;\n");
  }
  return absl::StrCat(
      "#compdef finetune\n"
      "# zsh completion for finetune; load it with: source <(finetune completion zsh)\n"
      "_finetune() {\n"
      "  local -a commands\n"
      "  commands=(\n",
      descriptions,
      "  )\n"
      "  if (( CURRENT == 2 )); then\n"
      "    _describe command commands\n"
      "    return\n"
      "  fi\n"
      "  case $words[2] in\n",
      cases,
      "  esac\n"
      "  if [[ $words[2] == completion ]]; then compadd bash zsh fish; else _files; fi\n"
      "}\n"
      "compdef _finetune finetune\n");
}

std::string Fish(const std::vector<Words>& all) {
  std::string script =
      "# fish completion for finetune; load it with: finetune completion fish | source\n";
  for (const Words& words : all) {
    absl::StrAppend(&script, "complete -c finetune -n __fish_use_subcommand -f -a ", words.command,
                    " -d '", absl::StrReplaceAll(words.description, {{"\\", "\\\\"}, {"'", "\\'"}}),
                    "'\n");
    for (const std::string& option : words.options) {
      absl::StrAppend(&script, "complete -c finetune -n '__fish_seen_subcommand_from ",
                      words.command, "' -l ", option.substr(2), "\n");
    }
  }
  return script +
         "complete -c finetune -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'\n";
}

Run Setup(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  app.add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
      ->type_name("SHELL");
  return [shell](Context& context) -> int {
    const std::vector<Words> all = Collect();
    context.out.Print(*shell == "bash" ? Bash(all) : *shell == "zsh" ? Zsh(all) : Fish(all));
    return kOk;
  };
}

}  // namespace

extern const Command kCompletion;
const Command kCompletion = {
    "completion", "completion script for a shell",
    "source <(finetune completion bash)\nfinetune completion fish | source", &Setup};

}  // namespace finetuned
