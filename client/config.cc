#include "client/config.h"

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "client/yaml_spec.h"
#include "proto/base/file_util.h"
#include "proto/base/status_macros.h"

namespace finetuned {
namespace {

constexpr char kDefaultServer[] = "127.0.0.1:50051";

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

const SpecValue* Find(const SpecValue& map, const std::string& name) {
  for (const auto& [key, value] : map.entries) {
    if (key == name) return &value;
  }
  return nullptr;
}

}  // namespace

std::string ConfigPath() {
  const std::string base = Environment("XDG_CONFIG_HOME");
  return absl::StrCat(base.empty() ? absl::StrCat(Environment("HOME"), "/.config") : base,
                      "/finetuned/config.yaml");
}

absl::StatusOr<ServerChoice> ChooseServer(const std::string& flag, const std::string& context,
                                          const std::string& config_path) {
  if (!flag.empty()) return ServerChoice{flag, "--server"};
  if (context.empty()) {
    if (const std::string server = Environment("FINETUNED_SERVER"); !server.empty()) {
      return ServerChoice{server, "FINETUNED_SERVER"};
    }
  }
  absl::StatusOr<std::string> text = ReadFile(config_path);
  if (absl::IsNotFound(text.status()) && context.empty()) {
    return ServerChoice{kDefaultServer, "default"};
  }
  if (!text.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot read the configuration: ", text.status().message()));
  }
  absl::StatusOr<SpecValue> tree = ParseYaml(*text);
  if (!tree.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(config_path, ": ", tree.status().message()));
  }
  std::string name = context;
  if (name.empty()) {
    const SpecValue* current = Find(*tree, "current");
    if (current == nullptr || current->scalar.empty())
      return ServerChoice{kDefaultServer, "default"};
    name = current->scalar;
  }
  std::string known;
  if (const SpecValue* contexts = Find(*tree, "contexts")) {
    for (const auto& [key, value] : contexts->entries) {
      absl::StrAppend(&known, known.empty() ? "" : ", ", key);
      if (key != name) continue;
      const SpecValue* server = Find(value, "server");
      if (server == nullptr || server->scalar.empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(config_path, ": context ", name, " has no server: HOST:PORT"));
      }
      return ServerChoice{server->scalar, absl::StrCat("context ", name, " of ", config_path)};
    }
  }
  return absl::InvalidArgumentError(absl::StrCat("no context ", name, " in ", config_path,
                                                 "; there are: ", known.empty() ? "none" : known));
}

}  // namespace finetuned
