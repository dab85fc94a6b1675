#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "client/cli.h"
#include "client/transfer.h"

namespace finetuned {
namespace {

Run Setup(CLI::App& app) {
  auto files = std::make_shared<std::vector<std::string>>();
  app.add_option("file", *files, "data file, or several")->required()->type_name("FILE");
  return [files](Context& context) -> int {
    for (const std::string& file : *files) {
      const absl::StatusOr<std::string> uri = Upload(context, file);
      if (!uri.ok()) {
        if (Interrupted())
          context.out.Plain("interrupted; the same command goes on where it stopped");
        return context.Fail(uri.status());
      }
      context.out.Line(*uri);
    }
    return kOk;
  };
}

}  // namespace

extern const Command kUpload;
const Command kUpload = {"upload",
                         "send a data file to the server; prints the name a job uses for it",
                         "finetune upload data.jsonl\nfinetune submit job.yaml --set "
                         "dataset.path=$(finetune upload -q data.jsonl)",
                         &Setup};

}  // namespace finetuned
