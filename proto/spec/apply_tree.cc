// Value tree → JobSpec, and single keys.
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/message.h"
#include "proto/spec/leaf_value.h"
#include "proto/spec/spec.h"
#include "proto/spec/spec_internal.h"

namespace finetuned {
namespace {

// Splits "lora.rank_pattern.q_proj" into the map key and the entry's name; null when it is no such
// path.
const KeyInfo* FindMapEntry(std::string_view path, std::string* entry) {
  for (size_t dot = path.find('.'); dot != std::string_view::npos; dot = path.find('.', dot + 1)) {
    const KeyInfo* info = FindKey(path.substr(0, dot));
    if (info == nullptr) continue;
    if (info->type == KeyType::kTextMap || info->type == KeyType::kWholeMap ||
        info->type == KeyType::kNumberMap) {
      *entry = std::string(path.substr(dot + 1));
      return info;
    }
  }
  return nullptr;
}

v1::Problem MakeProblem(v1::Problem::Severity severity, std::string_view field, std::string message,
                        std::string allowed) {
  v1::Problem problem;
  problem.set_severity(severity);
  problem.set_field(IsUtf8(field) ? std::string(field.substr(0, 200))
                                  : "(a name that is not UTF-8)");
  problem.set_message(std::move(message));
  problem.set_allowed(std::move(allowed));
  if (severity == v1::Problem::ERROR) problem.set_reason(v1::INVALID_SPEC);
  return problem;
}

class TreeMapper {
 public:
  TreeMapper(v1::JobSpec* spec, std::vector<MappingProblem>* problems)
      : spec_(spec), problems_(problems) {}

  void Apply(const SpecValue& map, const std::string& prefix) {
    for (const auto& [name, value] : map.entries) {
      // A block nested in itself for ever is cut by the client's depth limit; names are capped for
      // the messages.
      const std::string path = prefix.empty() ? name : absl::StrCat(prefix, ".", name);
      ApplyOne(path, value);
    }
  }

 private:
  void Report(v1::Problem::Severity severity, int line, std::string_view field, std::string message,
              std::string allowed) {
    problems_->push_back(
        {MakeProblem(severity, field, std::move(message), std::move(allowed)), line});
  }

  bool FirstTime(const std::string& path, const std::string& written, int line) {
    const auto [entry, inserted] = seen_.emplace(path, std::make_pair(written, line));
    if (inserted) return true;
    std::string message = "is given twice";
    if (entry->second.first != written) {
      absl::StrAppend(&message, ", as ", entry->second.first, " and as ", written);
    }
    if (entry->second.second > 0) {
      absl::StrAppend(&message, " (first on line ", entry->second.second, ")");
    }
    Report(v1::Problem::ERROR, line, path, message, "leave one of them out");
    return false;
  }

  void ApplyOne(const std::string& path, const SpecValue& value) {
    if (IsBlock(path)) {
      ApplyBlock(path, value);
      return;
    }
    const KeyInfo* info = FindKey(path);
    if (info != nullptr && !info->in_list) {
      if (!FirstTime(info->path, path, value.line)) return;
      Complaint bad =
          SetLeaf(MutableParent(spec_, *info), info->chain.back(), info->type, info->key, value);
      if (!bad.empty()) {
        Report(v1::Problem::ERROR, value.line, info->path, bad, AllowedText(*info));
      }
      return;
    }
    if (const auto refusal = RefusedKey(path, value.scalar)) {
      if (!refusal->empty()) Report(v1::Problem::ERROR, value.line, path, *refusal, "");
      return;
    }
    if (const auto warning = WithoutEffect(path)) {
      Report(v1::Problem::WARNING, value.line, path, *warning, "");
      return;
    }
    const std::string nearest = NearestKey(path);
    Report(v1::Problem::ERROR, value.line, path, "is not a key of a job",
           nearest.empty() ? "see deploy/job-reference.md for every key"
                           : absl::StrCat("did you mean ", nearest, "?"));
  }

  void ApplyBlock(const std::string& path, const SpecValue& value) {
    switch (value.kind) {
      case SpecValue::Kind::kNull:
        return;  // a block with everything commented out
      case SpecValue::Kind::kMap:
        if (FirstTime(path, path, value.line)) Apply(value, path);
        return;
      default:
        if (path == "lora") {
          if (const auto refusal = RefusedKey("use_lora", value.scalar); refusal->empty()) return;
          Report(v1::Problem::ERROR, value.line, path,
                 "full fine-tuning (a job without adapter) is not offered",
                 "the nearest choice is lora: {r: 256, target_modules: all-linear}");
          return;
        }
        Report(v1::Problem::ERROR, value.line, path, "is a block of keys, not a single value",
               absl::StrCat("write its keys below it, as ", path, ": {…}"));
    }
  }

  v1::JobSpec* spec_;
  std::vector<MappingProblem>* problems_;
  std::map<std::string, std::pair<std::string, int>> seen_;
};

}  // namespace

absl::Status SetKey(v1::JobSpec* spec, std::string_view dotted_key, std::string_view value) {
  const std::string path(absl::StripAsciiWhitespace(View(dotted_key)));
  absl::StatusOr<SpecValue> parsed = ParseFlowValue(value);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", parsed.status().message(), "; got ", Shown(value)));
  }
  v1::JobSpec changed = *spec;
  const KeyInfo* info = FindKey(path);
  if (info == nullptr || info->in_list) info = FindKeyByLastName(path);
  std::string entry;
  Complaint bad;
  if (info != nullptr) {
    bad =
        SetLeaf(MutableParent(&changed, *info), info->chain.back(), info->type, info->key, *parsed);
  } else if ((info = FindMapEntry(path, &entry)) != nullptr) {
    bad =
        AddMapEntry(MutableParent(&changed, *info), info->chain.back(), info->key, entry, *parsed);
  } else {
    std::vector<MappingProblem> problems;
    SpecValue tree = SpecValue::Map();
    tree.entries.emplace_back(path, *parsed);
    TreeMapper(&changed, &problems).Apply(tree, "");
    for (const MappingProblem& found : problems) {
      if (found.problem.severity() != v1::Problem::ERROR) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(found.problem.field(), ": ", found.problem.message(),
                       found.problem.allowed().empty() ? "" : "; ", found.problem.allowed()));
    }
  }
  if (!bad.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(info->path, ": ", bad, "; allowed: ", AllowedText(*info)));
  }
  *spec = std::move(changed);
  return absl::OkStatus();
}

std::vector<MappingProblem> ApplyTree(const SpecValue& tree, v1::JobSpec* spec) {
  std::vector<MappingProblem> problems;
  if (tree.kind == SpecValue::Kind::kMap) {
    TreeMapper(spec, &problems).Apply(tree, "");
  } else {
    problems.push_back(
        {MakeProblem(v1::Problem::ERROR, "", "a job is a list of \"key: value\" lines",
                     "for example model_name_or_path: my-model"),
         tree.line});
  }
  return problems;
}

}  // namespace finetuned
