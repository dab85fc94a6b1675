#include "proto/spec/spec_value.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "proto/base/status_macros.h"
#include "proto/spec/spec_internal.h"

namespace finetuned {
namespace {

constexpr int kMaxDepth = 8;
constexpr size_t kMaxText = 1 << 20;

SpecValue PlainScalar(std::string_view text) {
  while (!text.empty() && absl::ascii_isspace(text.front())) text.remove_prefix(1);
  while (!text.empty() && absl::ascii_isspace(text.back())) text.remove_suffix(1);
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return {};
  return SpecValue::Scalar(std::string(text));
}

class FlowParser {
 public:
  explicit FlowParser(std::string_view text) : text_(text) {}

  absl::StatusOr<SpecValue> Parse() {
    Skip();
    // At the top level a plain scalar is the whole text: "a, b" and "C:\x" need no quotes.
    if (At() != '[' && At() != '{' && At() != '"' && At() != '\'') return PlainScalar(text_);
    FT_ASSIGN_OR_RETURN(SpecValue value, Value(0));
    Skip();
    if (position_ < text_.size()) return Error("nothing may follow the value");
    return value;
  }

 private:
  char At() const { return position_ < text_.size() ? text_[position_] : '\0'; }
  void Skip() {
    while (position_ < text_.size() && absl::ascii_isspace(text_[position_])) ++position_;
  }
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("at character ", position_ + 1, ": ", View(what)));
  }

  absl::StatusOr<SpecValue> Value(int depth) {
    if (depth > kMaxDepth) return Error("more than 8 levels of brackets");
    Skip();
    switch (At()) {
      case '[':
        return List(depth);
      case '{':
        return Map(depth);
      case '"':
      case '\'': {
        FT_ASSIGN_OR_RETURN(std::string text, Quoted());
        return SpecValue::Scalar(std::move(text));
      }
      default:
        return PlainScalar(Plain(",]}"));
    }
  }

  std::string_view Plain(std::string_view stop) {
    const size_t begin = position_;
    while (position_ < text_.size() && stop.find(text_[position_]) == std::string_view::npos) {
      ++position_;
    }
    return text_.substr(begin, position_ - begin);
  }

  absl::StatusOr<std::string> Quoted() {
    const char quote = text_[position_++];
    std::string out;
    while (position_ < text_.size()) {
      const char c = text_[position_++];
      if (c == quote) {
        if (quote == '\'' && At() == '\'') {  // '' inside single quotes
          out += '\'';
          ++position_;
          continue;
        }
        return out;
      }
      if (c == '\\' && quote == '"' && position_ < text_.size()) {
        const char escaped = text_[position_++];
        out += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped;
        continue;
      }
      out += c;
    }
    return Error("the closing quote is missing");
  }

  absl::StatusOr<SpecValue> List(int depth) {
    ++position_;
    SpecValue list = SpecValue::List();
    for (Skip(); At() != ']'; Skip()) {
      if (At() == '\0') return Error("the closing ] is missing");
      FT_ASSIGN_OR_RETURN(SpecValue item, Value(depth + 1));
      list.items.push_back(std::move(item));
      Skip();
      if (At() == ',') {
        ++position_;
      } else if (At() != ']') {
        return Error(At() == '\0' ? "the closing ] is missing" : "expected , or ]");
      }
    }
    ++position_;
    return list;
  }

  absl::StatusOr<SpecValue> Map(int depth) {
    ++position_;
    SpecValue map = SpecValue::Map();
    for (Skip(); At() != '}'; Skip()) {
      if (At() == '\0') return Error("the closing } is missing");
      std::string key;
      if (At() == '"' || At() == '\'') {
        FT_ASSIGN_OR_RETURN(key, Quoted());
        Skip();
      } else {
        key = PlainScalar(Plain(":,}")).scalar;
      }
      if (At() != ':') return Error("expected \"key: value\"");
      ++position_;
      FT_ASSIGN_OR_RETURN(SpecValue value, Value(depth + 1));
      map.entries.emplace_back(std::move(key), std::move(value));
      Skip();
      if (At() == ',') {
        ++position_;
      } else if (At() != '}') {
        return Error(At() == '\0' ? "the closing } is missing" : "expected , or }");
      }
    }
    ++position_;
    return map;
  }

  std::string_view text_;
  size_t position_ = 0;
};

}  // namespace

absl::StatusOr<SpecValue> ParseFlowValue(std::string_view text) {
  if (text.size() > kMaxText) return absl::InvalidArgumentError("the value is longer than 1 MiB");
  return FlowParser(text).Parse();
}

}  // namespace finetuned
