#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli.h"
#include "client/format.h"
#include "client/job_file.h"

namespace finetuned {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> settings;
  bool all = false;
};

// "model.layers.17.mlp.up_proj" → "model.layers.*.mlp.up_proj": one row for the layers that are
// alike.
std::string Pattern(const std::string& name) {
  std::string out;
  size_t begin = 0;
  while (begin <= name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string piece = name.substr(begin, end - begin);
    const bool number =
        !piece.empty() && piece.find_first_not_of("0123456789") == std::string::npos;
    absl::StrAppend(&out, out.empty() ? "" : ".", number ? "*" : piece);
    begin = end + 1;
  }
  return out;
}

struct Group {
  std::string pattern;
  v1::LinearModule module;
  int count = 0;
};

void PrintModules(const Output& out, const v1::InspectModelResponse& response, bool all) {
  std::vector<Group> groups;
  for (const v1::LinearModule& module : response.linears()) {
    const std::string pattern = all ? module.name() : Pattern(module.name());
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& other) {
      return other.pattern == pattern && other.module.in_features() == module.in_features() &&
             other.module.out_features() == module.out_features() &&
             other.module.selected() == module.selected();
    });
    if (group == groups.end()) group = groups.insert(groups.end(), {pattern, module, 0});
    ++group->count;
  }
  std::vector<std::vector<std::string>> rows = {
      {"linear", "count", "in", "out", "largest useful r", "adapted"}};
  for (const Group& group : groups) {
    rows.push_back(
        {Printable(group.pattern, true), absl::StrCat(group.count),
         absl::StrCat(group.module.in_features()), absl::StrCat(group.module.out_features()),
         absl::StrCat(group.module.max_useful_rank()), group.module.selected() ? "yes" : "no"});
  }
  out.Table(rows);
}

int Inspect(Context& context, const Options& options) {
  v1::JobSpec spec;
  for (const std::string& setting : options.settings) {
    if (const absl::Status status = ApplySetting(context.out, setting, &spec); !status.ok())
      return context.Fail(status);
  }
  v1::InspectModelRequest request;
  request.set_model(LocalPath(options.model));
  if (spec.has_lora()) *request.mutable_lora() = spec.lora();
  if (spec.has_quantization()) *request.mutable_quantization() = spec.quantization();
  v1::InspectModelResponse response;
  const grpc::Status status =
      context.connection.Call(&Connection::Stub::InspectModel, request, &response, 600);
  if (!status.ok()) return context.Fail(status);
  if (context.out.machine()) {
    context.out.Message(response);
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {
      {"model", Printable(options.model, true)},
      {"family", absl::StrCat(Printable(response.family(), true), " (",
                              Printable(response.architecture(), true), ")")},
      {"parameters",
       absl::StrFormat("%s, of which %s would train (%.3f %%)",
                       FormatCount(static_cast<double>(response.total_parameters())),
                       FormatCount(static_cast<double>(response.trainable_parameters())),
                       100.0 * static_cast<double>(response.trainable_parameters()) /
                           std::max<double>(1, static_cast<double>(response.total_parameters())))},
      {"longest sequence", absl::StrCat(response.max_position_embeddings(), " tokens")},
      {"vocabulary", absl::StrCat(response.vocab_size())},
      {"chat template", response.chat_template().empty()
                            ? "none"
                            : Truncate(Printable(response.chat_template(), true), 60)}};
  for (const auto& [name, bytes] : response.bytes_by_category())
    rows.push_back({absl::StrCat("memory, ", name), FormatBytes(bytes)});
  context.out.Table(rows);
  context.out.Line("");
  PrintModules(context.out, response, options.all);
  for (const std::string& advice : response.advice())
    context.out.Line(absl::StrCat("\n", Printable(advice, true)));
  return kOk;
}

Run Setup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  app.add_option("model", options->model, "model directory, or name under a model root")
      ->required()
      ->type_name("MODEL");
  app.add_option("--set", options->settings, "a lora or quantization key, as in a job; repeatable")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->take_all()
      ->allow_extra_args(false);
  app.add_flag("--all", options->all,
               "a row for each layer instead of one for layers that are alike");
  return [options](Context& context) { return Inspect(context, *options); };
}

}  // namespace

extern const Command kInspect;
const Command kInspect = {
    "inspect", "what LoRA can attach to in a model, before any job",
    "finetune inspect SmolLM2-135M-Instruct\n"
    "finetune inspect SmolLM2-135M-Instruct --set lora.target_modules=attention --set r=8",
    &Setup};

}  // namespace finetuned
