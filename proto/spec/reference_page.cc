// deploy/job-reference.md, from the key table.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "proto/spec/spec.h"

namespace finetuned {
namespace {

std::string Cell(const std::string& text) { return absl::StrReplaceAll(text, {{"|", "\\|"}}); }

std::string RangeText(const KeyInfo& info) {
  std::string text = TypeName(info.type);
  if (info.key.allowed_size() > 0) text = absl::StrJoin(info.key.allowed(), " \\| ");
  const v1::Key& key = info.key;
  if (key.has_min() && key.has_max()) {
    absl::StrAppend(&text, ", ", key.min_exclusive() ? "above " : "", key.min(), "…", key.max());
  } else if (key.has_min()) {
    absl::StrAppend(&text, key.min_exclusive() ? ", above " : ", at least ", key.min());
  }
  if (!key.unit().empty()) absl::StrAppend(&text, ", ", key.unit());
  return text;
}

std::string NotesText(const KeyInfo& info) {
  std::vector<std::string> notes;
  if (!info.key.not_built_reason().empty()) notes.push_back(info.key.not_built_reason());
  for (const std::string& entry : info.key.not_built()) {
    notes.push_back(entry.substr(entry.find('=') + 1));
  }
  for (const std::string& alias : info.key.aliases()) {
    if (alias != info.path) notes.push_back(absl::StrCat("also `", alias, "`"));
  }
  for (const std::string& alias : info.key.value_aliases()) {
    const size_t equals = alias.find('=');
    notes.push_back(
        absl::StrCat("`", alias.substr(0, equals), "` means `", alias.substr(equals + 1), "`"));
  }
  return absl::StrJoin(notes, "; ");
}

}  // namespace

std::string JobReferencePage() {
  std::string page =
      "# Keys of a job\n\n"
      "Generated from `proto/finetuned/v1/job_spec.proto`; change it there, then run\n"
      "`FINETUNED_UPDATE=1 ctest -R proto_spec_test`. A job is a YAML file for `finetune submit`: "
      "every key with its\n"
      "default, what it accepts and other spellings. A dash means null: unset unless you set it.\n";
  // A block's own keys first, in the order of the file, then those of the blocks inside it.
  std::vector<std::pair<std::string, std::string>> blocks;
  for (const KeyInfo& info : AllKeys()) {
    const size_t dot = info.path.rfind('.');
    const std::string own = dot == std::string::npos ? "" : info.path.substr(0, dot);
    auto block = std::find_if(blocks.begin(), blocks.end(),
                              [&](const auto& entry) { return entry.first == own; });
    if (block == blocks.end()) block = blocks.insert(blocks.end(), {own, ""});
    const std::string& value = info.key.default_value();
    absl::StrAppend(&block->second, "| `", info.path.substr(dot + 1), "` | ",
                    value.empty() ? "–" : absl::StrCat("`", value, "`"), " | ", RangeText(info),
                    " | ", Cell(info.key.help()), " | ", Cell(NotesText(info)), " |\n");
  }
  for (const auto& [name, rows] : blocks) {
    absl::StrAppend(&page, "\n## ", name.empty() ? "Top level" : absl::StrCat("`", name, "`"),
                    "\n\n| key | default | accepts | what | notes |\n|---|---|---|---|---|\n",
                    rows);
  }
  absl::StrAppend(
      &page,
      "\n## Accepted without effect\n\nKeys of TrainingArguments that have no meaning here "
      "(`report_to`, `dataloader_num_workers`, `dataloader_pin_memory`, `device_map`, `ddp_*`, "
      "`hub_*`, `logging_dir`, `remove_unused_columns`, `torch_compile`, `tf32` and others) give "
      "a warning. `output_dir` is ignored: take artifacts home with `finetune download JOB --to "
      "DIR`.\n\n## Refused by name\n\n`load_in_8bit`, full fine-tuning, prefix and prompt tuning, "
      "`trust_remote_code`: the error names the nearest choice.\n");
  return page;
}

}  // namespace finetuned
