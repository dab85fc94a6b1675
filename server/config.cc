#include "server/config.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <variant>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"
#include "yaml-cpp/yaml.h"

namespace finetuned {
namespace {

namespace fs = std::filesystem;

constexpr char kDefaultFile[] = "/etc/finetuned/finetuned.yaml";

using Member = std::variant<std::string Config::*, std::vector<std::string> Config::*,
                            bool Config::*, double Config::*, int64_t Config::*>;
struct Option {
  const char* name;
  Member member;
  const char* placeholder;  // what --help shows for the value
  const char* help;
  std::vector<std::string> allowed;  // words; empty for any
  double min = 0;
  double max = 0;
};

const std::vector<Option>& Options() {
  static const auto* options = new std::vector<Option>{
      {"data-dir", &Config::data_dir, "DIR", "all state: database, jobs, uploads, artifacts", {}},
      {"listen", &Config::listen, "ADDRESS", "gRPC address: HOST:PORT or unix:PATH", {}},
      {"metrics-listen",
       &Config::metrics_listen,
       "ADDRESS",
       "Prometheus address: HOST:PORT, or off",
       {}},
      {"model-root",
       &Config::model_roots,
       "DIR",
       "directory base models may lie in (repeatable)",
       {}},
      {"data-root", &Config::data_roots, "DIR", "directory datasets may lie in (repeatable)", {}},
      {"worker", &Config::worker, "FILE", "finetune-worker; default: beside this binary", {}},
      {"log-format", &Config::log_format, "FORMAT", "form of the log lines", {"text", "json"}},
      {"log-level",
       &Config::log_level,
       "LEVEL",
       "least severe line that is logged (read again on SIGHUP)",
       {"trace", "debug", "info", "warning", "error", "off"}},
      {"insecure",
       &Config::insecure,
       "",
       "allow a gRPC address that other machines reach, without TLS",
       {}},
      {"memory-fraction",
       &Config::memory_fraction,
       "SHARE",
       "share of a device's free memory that jobs may plan",
       {},
       0.05,
       1.0},
      {"host-memory-mib",
       &Config::host_memory_mib,
       "MIB",
       "memory that CPU jobs may plan; 0: what is available at start",
       {},
       0,
       1e9},
      {"cpu-threads",
       &Config::cpu_threads,
       "N",
       "threads of a worker; 0: all processors of the server",
       {},
       0,
       4096},
      {"worker-lease-seconds",
       &Config::worker_lease_seconds,
       "SECONDS",
       "silence after which a worker counts as lost",
       {},
       10,
       86400},
      {"stall-timeout-seconds",
       &Config::stall_timeout_seconds,
       "SECONDS",
       "standstill after which a worker counts as stalled",
       {},
       10,
       604800},
      {"min-free-disk-mib",
       &Config::min_free_disk_mib,
       "MIB",
       "space on the data directory's disk kept free",
       {},
       0,
       1e9},
  };
  return *options;
}

int EditDistance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      int above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string Nearest(const std::string& name) {
  std::string best;
  int best_distance = 1 << 30;
  for (const Option& option : Options()) {
    int distance = EditDistance(name, option.name);
    if (distance < best_distance) best_distance = distance, best = option.name;
  }
  return best;
}

std::string EnvironmentName(const std::string& option) {
  return "FINETUNED_" + absl::AsciiStrToUpper(absl::StrReplaceAll(option, {{"-", "_"}}));
}

absl::Status Refuse(const Option& option, const std::string& source, const std::string& value,
                    const std::string& allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat(option.name, " is '", value, "' (", source, "); allowed: ", allowed));
}

// Sets the option from its text form(s).
absl::Status Apply(const Option& option, const std::vector<std::string>& values,
                   const std::string& source, Config& config) {
  config.sources[option.name] = source;
  if (auto* list = std::get_if<std::vector<std::string> Config::*>(&option.member)) {
    config.*(*list) = values;
    return absl::OkStatus();
  }
  if (values.size() != 1)
    return absl::InvalidArgumentError(
        absl::StrCat(option.name, " has ", values.size(), " values (", source, "); it takes one"));
  const std::string& value = values[0];
  const std::string range = absl::StrCat(option.min, " to ", option.max);
  if (auto* text = std::get_if<std::string Config::*>(&option.member)) {
    if (value.empty()) return Refuse(option, source, value, "a value that is not empty");
    if (!option.allowed.empty() &&
        std::find(option.allowed.begin(), option.allowed.end(), value) == option.allowed.end())
      return Refuse(option, source, value, absl::StrJoin(option.allowed, ", "));
    config.*(*text) = value;
  } else if (auto* flag = std::get_if<bool Config::*>(&option.member)) {
    bool parsed = false;
    if (!absl::SimpleAtob(value, &parsed)) return Refuse(option, source, value, "true, false");
    config.*(*flag) = parsed;
  } else if (auto* real = std::get_if<double Config::*>(&option.member)) {
    double parsed = 0;
    if (!absl::SimpleAtod(value, &parsed) || !(parsed >= option.min && parsed <= option.max))
      return Refuse(option, source, value, range);
    config.*(*real) = parsed;
  } else if (auto* whole = std::get_if<int64_t Config::*>(&option.member)) {
    int64_t parsed = 0;
    if (!absl::SimpleAtoi(value, &parsed) || parsed < option.min || parsed > option.max)
      return Refuse(option, source, value, absl::StrCat("a whole number, ", range));
    config.*(*whole) = parsed;
  }
  return absl::OkStatus();
}

absl::Status ApplyFile(const std::string& path, Config& config) {
  FT_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is no YAML: ", error.what()));
  }
  if (root.IsNull()) return absl::OkStatus();
  if (!root.IsMap())
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected lines of 'key: value'"));
  for (const auto& entry : root) {
    if (!entry.first.IsScalar())
      return absl::InvalidArgumentError(absl::StrCat(path, ": a key is no word"));
    // data_dir is read as data-dir.
    const std::string key = absl::StrReplaceAll(entry.first.Scalar(), {{"_", "-"}});
    const std::string where = absl::StrCat("file ", path, ":", entry.first.Mark().line + 1);
    const auto option =
        std::find_if(Options().begin(), Options().end(),
                     [&](const Option& candidate) { return key == candidate.name; });
    if (option == Options().end())
      return absl::InvalidArgumentError(absl::StrCat("unknown key '", entry.first.Scalar(), "' (",
                                                     where, "); did you mean '", Nearest(key),
                                                     "'?"));
    std::vector<std::string> values;
    if (entry.second.IsScalar()) {
      values.push_back(entry.second.Scalar());
    } else if (entry.second.IsSequence()) {
      for (const auto& value : entry.second) {
        if (!value.IsScalar())
          return absl::InvalidArgumentError(
              absl::StrCat(key, " (", where, "): expected a list of words"));
        values.push_back(value.Scalar());
      }
    } else {
      return absl::InvalidArgumentError(absl::StrCat(key, " has no value (", where, ")"));
    }
    FT_RETURN_IF_ERROR(Apply(*option, values, where, config));
  }
  return absl::OkStatus();
}

absl::Status CheckAddress(const std::string& name, const std::string& value, bool unix_too) {
  if (unix_too && absl::StartsWith(value, "unix:")) {
    const std::string path = value.substr(5);
    // sockaddr_un holds 108 bytes with the final zero.
    if (path.empty() || path.size() > 107)
      return absl::InvalidArgumentError(absl::StrCat(
          name, " is '", value, "'; allowed: unix:PATH with a path of 1 to 107 bytes"));
    return absl::OkStatus();
  }
  const size_t colon = value.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(value.substr(colon + 1), &port) || port < 0 || port > 65535)
    return absl::InvalidArgumentError(
        absl::StrCat(name, " is '", value, "'; allowed: HOST:PORT with a port of 0 to 65535",
                     unix_too ? ", or unix:PATH" : ", or off"));
  return absl::OkStatus();
}

std::string DefaultDataDir(const Environment& environment) {
  if (geteuid() == 0) return "/var/lib/finetuned";
  if (auto data = environment("XDG_DATA_HOME"); data && !data->empty()) return *data + "/finetuned";
  return environment("HOME").value_or("/tmp") + "/.local/share/finetuned";
}

std::string Absolute(const std::string& path) {
  return fs::absolute(path).lexically_normal().string();
}

absl::Status Finish(Config& config) {
  FT_RETURN_IF_ERROR(CheckAddress("listen", config.listen, true));
  if (config.metrics_listen != "off")
    FT_RETURN_IF_ERROR(CheckAddress("metrics-listen", config.metrics_listen, false));
  if (!IsLocalAddress(config.listen) && !config.insecure)
    return absl::InvalidArgumentError(
        absl::StrCat("listen is '", config.listen, "' (", config.sources["listen"],
                     "): other machines reach this address and calls to it are neither encrypted "
                     "nor authenticated; allowed: "
                     "127.0.0.1:PORT, [::1]:PORT, unix:PATH, or this address with --insecure on a "
                     "network you trust"));
  config.data_dir = Absolute(config.data_dir);
  config.worker = Absolute(config.worker);
  for (auto* roots : {&config.model_roots, &config.data_roots})
    for (std::string& root : *roots) {
      if (root.empty())
        return absl::InvalidArgumentError(
            "a model-root or data-root is empty; allowed: a directory");
      root = Absolute(root);
    }
  return absl::OkStatus();
}

std::string YamlText(const std::string& value) {
  YAML::Emitter out;
  out << YAML::DoubleQuoted << value;
  return out.c_str();
}

}  // namespace

bool IsLocalAddress(std::string_view listen) {
  if (listen.substr(0, 5) == "unix:") return true;
  const std::string_view host = listen.substr(0, listen.rfind(':'));
  return host == "localhost" || host == "[::1]" || host.substr(0, 4) == "127.";
}

absl::StatusOr<CommandLine> ParseCommandLine(const std::string& program,
                                             const std::vector<std::string>& args,
                                             const Environment& environment) {
  CLI::App app{
      "finetuned: fine-tunes large language models; a daemon with a queue, driven by `finetune`",
      "finetuned"};
  app.footer(
      "Each option is also a key of the YAML file (data-dir: /srv/finetuned) and an environment "
      "variable\n"
      "(FINETUNED_DATA_DIR; lists with ':' between). Flag over environment over file over "
      "default.\n\n"
      "Example:\n"
      "  finetuned --data-dir /srv/finetuned --model-root /srv/models --data-root /srv/datasets\n"
      "  finetune submit job.yaml --watch");
  app.require_subcommand(0, 1);
  auto* serve = app.add_subcommand("serve", "run the server (the default)");
  auto* config_command =
      app.add_subcommand("config", "print the configuration, each value with its source");
  auto* check =
      app.add_subcommand("check", "check configuration, data directory, roots, worker and devices");
  auto* version = app.add_subcommand("version", "print the version");
  for (auto* command : {serve, config_command, check, version}) command->fallthrough();

  std::string file;
  app.add_option(
         "--config", file,
         std::string("configuration file (YAML); default ") + kDefaultFile + " if it exists")
      ->type_name("FILE");
  std::map<std::string, std::vector<std::string>> flags;
  std::map<std::string, bool> switches;
  for (const Option& option : Options()) {
    const std::string flag = std::string("--") + option.name;
    std::string help = option.help;
    if (!option.allowed.empty()) absl::StrAppend(&help, ": ", absl::StrJoin(option.allowed, ", "));
    if (std::holds_alternative<bool Config::*>(option.member)) {
      app.add_flag(flag, switches[option.name], help);
      continue;
    }
    Config defaults;
    if (auto* text = std::get_if<std::string Config::*>(&option.member);
        text && !(defaults.*(*text)).empty())
      absl::StrAppend(&help, " [", defaults.*(*text), "]");
    if (auto* real = std::get_if<double Config::*>(&option.member))
      absl::StrAppend(&help, " [", defaults.*(*real), "]");
    if (auto* whole = std::get_if<int64_t Config::*>(&option.member))
      absl::StrAppend(&help, " [", defaults.*(*whole), "]");
    auto* added = app.add_option(flag, flags[option.name], help)->type_name(option.placeholder);
    // One value each time, so that a word after the flag's value is not swallowed.
    added->expected(1)->allow_extra_args(false);
    if (std::holds_alternative<std::vector<std::string> Config::*>(option.member))
      added->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    else
      added->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  }

  CommandLine line;
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));
  } catch (const CLI::CallForHelp&) {
    line.command = ServerCommand::kHelp;
    line.help = app.help();
    return line;
  } catch (const CLI::ExtrasError& error) {
    for (const std::string& arg : args) {
      const std::string name = arg.substr(0, arg.find('='));
      if (absl::StartsWith(name, "--") && name != "--config" &&
          std::none_of(Options().begin(), Options().end(),
                       [&](const Option& option) { return name.substr(2) == option.name; }))
        return absl::InvalidArgumentError(
            absl::StrCat("unknown flag ", name, "; did you mean --", Nearest(name.substr(2)), "?"));
    }
    return absl::InvalidArgumentError(absl::StrCat(error.what(), "; see finetuned --help"));
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(absl::StrCat(error.what(), "; see finetuned --help"));
  }
  if (*version) {
    line.command = ServerCommand::kVersion;
    return line;
  }
  line.command = *config_command ? ServerCommand::kConfig
                 : *check        ? ServerCommand::kCheck
                                 : ServerCommand::kServe;

  Config& config = line.config;
  config.data_dir = DefaultDataDir(environment);
  config.worker = (fs::absolute(program).parent_path() / "finetune-worker").string();
  for (const Option& option : Options()) config.sources[option.name] = "default";
  if (file.empty()) file = environment("FINETUNED_CONFIG").value_or("");
  if (file.empty() && access(kDefaultFile, R_OK) == 0) file = kDefaultFile;
  if (!file.empty()) {
    config.config = Absolute(file);
    FT_RETURN_IF_ERROR(ApplyFile(config.config, config));
  }
  for (const Option& option : Options()) {
    const std::string name = EnvironmentName(option.name);
    if (auto value = environment(name)) {
      const bool list = std::holds_alternative<std::vector<std::string> Config::*>(option.member);
      std::vector<std::string> values = {*value};
      if (list) values = absl::StrSplit(*value, ':', absl::SkipEmpty());
      FT_RETURN_IF_ERROR(Apply(option, values, "environment " + name, config));
    }
    if (!flags[option.name].empty()) {
      FT_RETURN_IF_ERROR(Apply(option, flags[option.name], "flag", config));
    } else if (switches.count(option.name) && app.count(std::string("--") + option.name) > 0) {
      FT_RETURN_IF_ERROR(Apply(option, {switches[option.name] ? "true" : "false"}, "flag", config));
    }
  }
  FT_RETURN_IF_ERROR(Finish(config));
  return line;
}

std::string DescribeConfig(const Config& config) {
  std::string out =
      config.config.empty() ? "# no configuration file\n" : absl::StrCat("# ", config.config, "\n");
  for (const Option& option : Options()) {
    std::string value = std::visit(
        [&](auto member) -> std::string {
          const auto& field = config.*member;
          using Field = std::decay_t<decltype(field)>;
          if constexpr (std::is_same_v<Field, std::string>) {
            return YamlText(field);
          } else if constexpr (std::is_same_v<Field, std::vector<std::string>>) {
            return absl::StrCat("[",
                                absl::StrJoin(field, ", ",
                                              [](std::string* out, const std::string& item) {
                                                absl::StrAppend(out, YamlText(item));
                                              }),
                                "]");
          } else if constexpr (std::is_same_v<Field, bool>) {
            return field ? "true" : "false";
          } else {
            return absl::StrCat(field);
          }
        },
        option.member);
    const auto source = config.sources.find(option.name);
    absl::StrAppend(&out, option.name, ": ", value, "  # ",
                    source == config.sources.end() ? "default" : source->second, "\n");
  }
  return out;
}

}  // namespace finetuned
