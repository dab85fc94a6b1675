#include "client/yaml_spec.h"

#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "yaml-cpp/eventhandler.h"
#include "yaml-cpp/exceptions.h"
#include "yaml-cpp/mark.h"
#include "yaml-cpp/parser.h"

namespace finetuned {
namespace {

constexpr size_t kMaxBytes = 4 << 20;
constexpr size_t kMaxDepth = 32;
constexpr int kMaxValues = 100000;

// Thrown out of yaml-cpp's callbacks, which have no other way to stop.
struct Refused {
  int line;
  std::string why;
};

// Builds the tree from parser events, so that nothing is expanded that we do not want expanded.
class TreeBuilder : public YAML::EventHandler {
 public:
  SpecValue Take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    CheckAnchor(mark, anchor);
    Add(mark, {});
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw Refused{mark.line + 1, "aliases (*name) are not accepted; write the value out"};
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    CheckTag(mark, tag);
    CheckAnchor(mark, anchor);
    Add(mark, SpecValue::Scalar(value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    CheckTag(mark, tag);
    CheckAnchor(mark, anchor);
    Open(mark, SpecValue::List());
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    CheckTag(mark, tag);
    CheckAnchor(mark, anchor);
    Open(mark, SpecValue::Map());
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Level {
    SpecValue value;
    bool have_key = false;
    std::string key;
    int key_line = 0;
  };

  static void CheckAnchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != 0) throw Refused{mark.line + 1, "anchors (&name) are not accepted"};
  }
  static void CheckTag(const YAML::Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "?" || tag == "!" || absl::StartsWith(tag, "tag:yaml.org,2002:str") ||
        absl::StartsWith(tag, "tag:yaml.org,2002:int") ||
        absl::StartsWith(tag, "tag:yaml.org,2002:float")) {
      return;
    }
    throw Refused{mark.line + 1, absl::StrCat("the tag ", tag.substr(0, 80), " is not accepted")};
  }

  void Count(const YAML::Mark& mark) {
    if (++values_ > kMaxValues) throw Refused{mark.line + 1, "more than 100000 values"};
  }
  void Open(const YAML::Mark& mark, SpecValue value) {
    Count(mark);
    if (levels_.size() >= kMaxDepth) throw Refused{mark.line + 1, "more than 32 levels"};
    if (!levels_.empty() && levels_.back().value.kind == SpecValue::Kind::kMap &&
        !levels_.back().have_key) {
      throw Refused{mark.line + 1, "a key must be a single word, not a list or a block"};
    }
    value.line = mark.line + 1;
    levels_.push_back({std::move(value)});
  }
  void Close() {
    SpecValue value = std::move(levels_.back().value);
    levels_.pop_back();
    Place(std::move(value));
  }
  void Add(const YAML::Mark& mark, SpecValue value) {
    Count(mark);
    value.line = mark.line + 1;
    if (!levels_.empty() && levels_.back().value.kind == SpecValue::Kind::kMap &&
        !levels_.back().have_key) {
      if (value.kind == SpecValue::Kind::kNull) throw Refused{mark.line + 1, "a key is missing"};
      levels_.back().have_key = true;
      levels_.back().key = std::move(value.scalar);
      levels_.back().key_line = value.line;
      return;
    }
    Place(std::move(value));
  }
  void Place(SpecValue value) {
    if (levels_.empty()) {
      root_ = std::move(value);
      return;
    }
    Level& level = levels_.back();
    if (level.value.kind == SpecValue::Kind::kMap) {
      value.line = level.key_line;  // the line of the key is the one people look for
      level.value.entries.emplace_back(std::move(level.key), std::move(value));
      level.have_key = false;
    } else {
      level.value.items.push_back(std::move(value));
    }
  }

  SpecValue root_;
  std::vector<Level> levels_;
  int values_ = 0;
};

absl::Status AtLine(int line, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", std::string(what)));
}

// Whether YAML reads the plain text back as the same text.
bool PlainIsSafe(std::string_view text) {
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL")
    return false;
  for (const char c : text) {
    const bool plain = absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' ||
                       c == '/' || c == '+' || c == '-' || static_cast<unsigned char>(c) >= 0x80;
    if (!plain) return false;
  }
  return absl::ascii_isalnum(static_cast<unsigned char>(text[0])) || text[0] == '/' ||
         text[0] == '_' || (text[0] == '-' && text.size() > 1 && absl::ascii_isdigit(text[1]));
}

std::string Quote(std::string_view text) {
  if (PlainIsSafe(text)) return std::string(text);
  std::string out = "\"";
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          absl::StrAppendFormat(&out, "\\x%02x", static_cast<unsigned char>(c));
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

void Emit(const SpecValue& value, int depth, std::string* out) {
  const std::string indent(2 * depth, ' ');
  switch (value.kind) {
    case SpecValue::Kind::kNull:
      *out += " null\n";
      return;
    case SpecValue::Kind::kScalar:
      absl::StrAppend(out, " ", Quote(value.scalar), "\n");
      return;
    case SpecValue::Kind::kList: {
      const bool flat =
          std::all_of(value.items.begin(), value.items.end(), [](const SpecValue& item) {
            return item.kind == SpecValue::Kind::kScalar && item.scalar.size() < 200;
          });
      if (flat) {
        *out += " [";
        for (size_t i = 0; i < value.items.size(); ++i) {
          absl::StrAppend(out, i == 0 ? "" : ", ", Quote(value.items[i].scalar));
        }
        *out += "]\n";
        return;
      }
      *out += "\n";
      for (const SpecValue& item : value.items) {
        if (item.kind != SpecValue::Kind::kMap || item.entries.empty()) {
          absl::StrAppend(out, indent, "-");
          Emit(item, depth + 1, out);
          continue;
        }
        // The first key stands behind the dash.
        std::string block;
        for (const auto& [key, entry] : item.entries) {
          absl::StrAppend(&block, indent, "  ", Quote(key), ":");
          Emit(entry, depth + 2, &block);
        }
        block[indent.size()] = '-';
        *out += block;
      }
      return;
    }
    case SpecValue::Kind::kMap:
      if (value.entries.empty()) {
        *out += " {}\n";
        return;
      }
      if (depth > 0) *out += "\n";
      for (const auto& [key, entry] : value.entries) {
        absl::StrAppend(out, indent, Quote(key), ":");
        Emit(entry, depth + 1, out);
      }
  }
}

void CollectLines(const SpecValue& map, const std::string& prefix,
                  std::map<std::string, int>* lines) {
  for (const auto& [name, value] : map.entries) {
    const std::string path = prefix.empty() ? name : absl::StrCat(prefix, ".", name);
    const KeyInfo* info = FindKey(path);
    lines->emplace(info == nullptr ? path : info->path, value.line);
    if (value.kind == SpecValue::Kind::kMap) CollectLines(value, path, lines);
  }
}

}  // namespace

absl::StatusOr<SpecValue> ParseYaml(std::string_view text) {
  if (text.size() > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the file has ", text.size(), " bytes; a job file has at most ", kMaxBytes));
  }
  if (text.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError("the file holds NUL bytes, so it is no YAML");
  }
  std::istringstream stream{std::string(text)};
  TreeBuilder builder;
  try {
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    TreeBuilder second;
    if (parser.HandleNextDocument(second)) {
      return absl::InvalidArgumentError("the file holds more than one document (---)");
    }
  } catch (const Refused& refused) {
    return AtLine(refused.line, refused.why);
  } catch (const YAML::Exception& error) {
    return AtLine(error.mark.line + 1, error.msg);
  }
  return builder.Take();
}

std::string EmitYaml(const SpecValue& tree) {
  std::string out;
  Emit(tree, 0, &out);
  if (!out.empty() && out[0] == ' ') out.erase(0, 1);
  return out;
}

absl::StatusOr<JobFile> ParseJobFile(std::string_view text) {
  absl::StatusOr<SpecValue> tree = ParseYaml(text);
  if (!tree.ok()) return tree.status();
  if (tree->kind == SpecValue::Kind::kNull) {
    return absl::InvalidArgumentError(
        "the file is empty; a job names at least model_name_or_path and "
        "dataset.path");
  }
  JobFile file;
  file.problems = ApplyTree(*tree, &file.spec);
  CollectLines(*tree, "", &file.lines);
  return file;
}

std::string SpecToYaml(const v1::JobSpec& spec) { return EmitYaml(SpecToTree(spec)); }

}  // namespace finetuned
